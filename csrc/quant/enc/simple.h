/* simple.h: encoders of the types whose blocks of 32 values have one scale, perhaps with a minimum: see fit.h for the
 * method. A room's enc_simple.c includes this after its lanes.h, with LEVEL. */
#include "quant/blocks.h"
#include "quant/enc/fit.h"

/* Where blocks of `bytes` of a group lie, and somewhere for those that do not exist. */
static void enc_places(uint8_t *dst, int bytes, int live, uint8_t *spare, uint8_t **p) {
  for (int l = 0; l < LANES; l++) p[l] = l < live ? dst + l * bytes : spare;
}

static void enc_at(uint8_t *const *p, int off, uint8_t **q) {
  for (int l = 0; l < LANES; l++) q[l] = p[l] + off;
}

static void put16(uint8_t *const *p, int off, const uint16_t *h) {
  for (int l = 0; l < LANES; l++) memcpy(p[l] + off, h + l, 2);
}

/* Codes c [32][16] of five bits or four: nibbles at qs, fifth bits (if any) in the word at qh. */
static void put_codes(const uint8_t *c, int qs, int qh, uint8_t *const *p) {
  uint8_t nib[16 * LANES], *q[LANES];
  for (int i = 0; i < 16 * LANES; i++) nib[i] = (uint8_t)((c[i] & 15) | (c[16 * LANES + i] & 15) << 4);
  enc_at(p, qs, q);
  v_scatter(nib, q);
  if (qh < 0) return;
  uint32_t bits[LANES] = {0};
  for (int i = 0; i < 32; i++)
    for (int l = 0; l < LANES; l++) bits[l] |= (uint32_t)(c[i * LANES + l] >> 4) << i;
  for (int l = 0; l < LANES; l++)
    for (int i = 0; i < 4; i++) p[l][qh + i] = (uint8_t)(bits[l] >> 8 * i);
}

/* w = d * (q - zero), of 4 or 5 bits. */
PL_INLINE void enc_symmetric(const float *x, const float *w, int64_t cols, int64_t n, uint8_t *dst, int zero,
                             int qs, int qh, const float *edge, int n_edges, int refits) {
  int bytes = qs + 16;
  const enc_book book = {(float)-zero, (float)(zero - 1), NULL, NULL};
  for (int64_t b = 0; b < n / 32; b += LANES, dst += LANES * bytes) {
    enc_group g = enc_take(x, w, cols, 32, b, n / 32);
    v16 v[32], u[32];
    enc_columns(g.x, 32, v);
    if (w) enc_columns(g.w, 32, u);
    uint16_t h[LANES];
    v16 d = enc_half(fit_scale(v, w ? u : NULL, 32, &book, edge, n_edges, refits), h), inv = enc_inverse(d);
    uint8_t c[32 * LANES], spare[32], *p[LANES];
    for (int i = 0; i < 32; i++)
      v_bytes(c + i * LANES, v_add(enc_nearest(v_mul(v[i], inv), &book), v_set((float)zero)));
    enc_places(dst, bytes, g.live, spare, p);
    put16(p, 0, h);
    put_codes(c, qs, qh, p);
  }
}

/* w = d * q + m, of 4 or 5 bits. */
PL_INLINE void enc_shifted(const float *x, const float *w, int64_t cols, int64_t n, uint8_t *dst, int hi, int qs,
                           int qh, const enc_grid *grid, int refits) {
  int bytes = qs + 16;
  const enc_book book = {0, (float)hi, NULL, NULL};
  for (int64_t b = 0; b < n / 32; b += LANES, dst += LANES * bytes) {
    enc_group g = enc_take(x, w, cols, 32, b, n / 32);
    v16 v[32], u[32], y[32], m;
    enc_columns(g.x, 32, v);
    if (w) enc_columns(g.w, 32, u);
    uint16_t h[LANES], hm[LANES];
    v16 d = enc_half(fit_affine(v, w ? u : NULL, 32, (float)hi, 0, grid, refits, y, &m), h);
    v16 inv = enc_inverse(d);
    m = enc_half(m, hm);
    uint8_t c[32 * LANES], spare[32], *p[LANES];
    for (int i = 0; i < 32; i++) v_bytes(c + i * LANES, enc_nearest(v_mul(v_sub(v[i], m), inv), &book));
    enc_places(dst, bytes, g.live, spare, p);
    put16(p, 0, h);
    put16(p, 2, hm);
    put_codes(c, qs, qh, p);
  }
}

/* Without weights these types are made quickly: few starts. With weights clipping pays more often. */

PL_ENC(Q4_0) {
  static const float edge[] = {-8.0f, -7.4f, -8.6f, 7.0f, -7.7f, -7.1f, -6.8f, -6.5f, -6.2f, -5.8f, -5.4f, -9.2f,
                               -8.3f, 7.3f,  7.6f,  7.9f, 8.2f,  6.7f,  6.4f,  6.1f,  5.8f,  5.5f,  5.2f};
  if (w)
    enc_symmetric(x, w, cols, n, dst, 8, 2, -1, edge, 23, 2);
  else
    enc_symmetric(x, NULL, cols, n, dst, 8, 2, -1, edge, 4, 0);
}

PL_ENC(Q5_0) {
  static const float edge[] = {-16.0f, -15.4f, -16.6f, 15.5f,  -15.7f, -15.1f, -14.8f, -14.4f,
                               -14.0f, -13.5f, -17.0f, -16.3f, 15.2f,  15.8f,  16.1f,  14.9f,
                               14.6f,  14.3f,  14.0f,  13.6f,  13.2f,  -13.0f};
  if (w)
    enc_symmetric(x, w, cols, n, dst, 16, 6, 2, edge, 22, 2);
  else
    enc_symmetric(x, NULL, cols, n, dst, 16, 6, 2, edge, 4, 0);
}

PL_ENC(Q4_1) {
  static const enc_grid few = {14.6f, 0.7f, 3, 1}, many = {14.0f, 0.25f, 20, 3};
  if (w)
    enc_shifted(x, w, cols, n, dst, 15, 4, -1, &many, 4);
  else
    enc_shifted(x, NULL, cols, n, dst, 15, 4, -1, &few, 0);
}

PL_ENC(Q5_1) {
  static const enc_grid few = {30.6f, 0.7f, 3, 1}, many = {30.0f, 0.25f, 20, 3};
  if (w)
    enc_shifted(x, w, cols, n, dst, 31, 8, 4, &many, 4);
  else
    enc_shifted(x, NULL, cols, n, dst, 31, 8, 4, &few, 0);
}

PL_ENC(Q8_0) {
  static const float edge[] = {127.0f, 127.4f, 126.6f, 126.2f, 127.8f};
  const enc_book book = {-127, 127, NULL, NULL};
  uint8_t *to = dst;
  for (int64_t b = 0; b < n / 32; b += LANES, to += LANES * 34) {
    enc_group g = enc_take(x, w, cols, 32, b, n / 32);
    v16 v[32], u[32];
    enc_columns(g.x, 32, v);
    if (w) enc_columns(g.w, 32, u);
    uint16_t h[LANES];
    v16 d = w ? fit_scale(v, u, 32, &book, edge, 5, 1) : fit_scale(v, NULL, 32, &book, edge, 1, 0);
    v16 inv = enc_inverse(enc_half(d, h));
    uint8_t c[32 * LANES], spare[34], *p[LANES], *q[LANES];
    for (int i = 0; i < 32; i++) v_bytes(c + i * LANES, enc_nearest(v_mul(v[i], inv), &book));
    enc_places(to, 34, g.live, spare, p);
    put16(p, 0, h);
    for (int i = 0; i < 2; i++) {
      enc_at(p, 2 + 16 * i, q);
      v_scatter(c + 16 * i * LANES, q);
    }
  }
}
