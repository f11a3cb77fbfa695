/* table.h: encoders of the types with few or uneven codes: IQ4_NL, IQ4_XS, MXFP4, NVFP4, TQ1_0, TQ2_0, Q1_0. Scales are
 * found as fit.h and super.h say; those that are not half floats are tried one by one. A room's enc_table.c includes this
 * after its lanes.h, with LEVEL. */
#include "quant/blocks.h"
#include "quant/enc/super.h"

static const float iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const float iq4_cuts[16] = {-115.5f, -93.5f, -74,   -57,   -42, -28.5f, -16, -4.5f,
                                   7,       19,     31.5f, 45.5f, 61,  79,     101};
static const enc_book iq4_book = {-127, 113, iq4_values, iq4_cuts};
/* Twice the E2M1 values, ascending, and their codes. */
static const float e2m1_values[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 6, 8, 12};
static const float e2m1_cuts[16] = {-10, -7, -5, -3.5f, -2.5f, -1.5f, -0.5f, 0, 0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};
static const float e2m1_codes[16] = {15, 14, 13, 12, 11, 10, 9, 0, 0, 1, 2, 3, 4, 5, 6, 7};
static const enc_book e2m1_book = {-12, 12, e2m1_values, e2m1_cuts};

/* Where the blocks of a group lie from dst on, and `spare` for those that do not exist. */
static void table_places(uint8_t *dst, int bytes, int live, uint8_t *spare, uint8_t **p) {
  for (int l = 0; l < LANES; l++) p[l] = l < live ? dst + l * bytes : spare;
}

/* Codes c [n][16] of four bits, those of the second half of each `run` values above those of the first, to p [16]. */
static void table_nibbles(const uint8_t *c, int run, uint8_t *const *p) {
  uint8_t nib[16 * LANES];
  int half = run / 2;
  for (int i = 0; i < 16; i++) {
    const uint8_t *lo = c + (i / half * run + i % half) * LANES, *hi = lo + half * LANES;
    for (int l = 0; l < LANES; l++) nib[i * LANES + l] = (uint8_t)(lo[l] | hi[l] << 4);
  }
  v_scatter(nib, p);
}

PL_ENC(IQ4_NL) {
  static const float edge[] = {-127.0f, -119.0f, -135.0f, 113.0f, 105.0f, 120.0f, -111.0f, 98.0f,   -143.0f,
                               127.0f,  -123.0f, -131.0f, 109.0f, 116.0f, 101.0f, -115.0f, -107.0f, 94.0f};
  uint8_t *to = dst;
  for (int64_t b = 0; b < n / 32; b += LANES, to += LANES * 18) {
    int live = n / 32 - b < LANES ? (int)(n / 32 - b) : LANES;
    v16 v[32], u[32];
    super_take(x, w, cols, 32, b, n / 32, v, u);
    uint16_t h[LANES];
    v16 inv = enc_inverse(enc_half(fit_scale(v, u, 32, &iq4_book, edge, 18, 2), h));
    uint8_t c[32 * LANES], spare[18], *p[LANES];
    for (int i = 0; i < 32; i++) v_bytes(c + i * LANES, enc_find(v_mul(v[i], inv), iq4_cuts));
    table_places(to, 18, live, spare, p);
    for (int l = 0; l < LANES; l++) {
      memcpy(p[l], h + l, 2);
      p[l] += 2;
    }
    table_nibbles(c, 32, p);
  }
}

static void put_iq4_xs(void *block, const uint8_t *q, const int8_t *sc, const int8_t *mm, uint16_t d, uint16_t m) {
  pl_block_iq4_xs *b = block;
  for (int j = 0; j < 8; j++)
    for (int i = 0; i < 16; i++) b->qs[j * 16 + i] = (uint8_t)(q[j * 32 + i] | q[j * 32 + 16 + i] << 4);
  uint16_t high = 0;
  memset(b->scales_l, 0, sizeof b->scales_l);
  for (int j = 0; j < 8; j++) {
    int s = sc[j] + 32;
    b->scales_l[j / 2] = (uint8_t)(b->scales_l[j / 2] | (s & 15) << j % 2 * 4);
    high = (uint16_t)(high | s >> 4 << j * 2);
  }
  memcpy(&b->scales_h, &high, 2);
  memcpy(&b->d, &d, 2);
}

PL_ENC(IQ4_XS) {
  static const float edge[] = {-127.0f, -119.0f, -135.0f, 113.0f, 105.0f, 120.0f, -111.0f, 98.0f, 127.0f};
  static const float start[] = {-32.0f, -30.0f};
  static const enc_multiples by = {-32, 31, start, 2, 1};
  enc_super1(x, w, cols, n, dst, sizeof(pl_block_iq4_xs), 32, &iq4_book, 0, edge, 9, 1, &by, put_iq4_xs);
}

/* The exponent of each lane's greatest magnitude (-126 for what is below), and 2 to the minus that. */
PL_INLINE v16 enc_exponents(const v16 *x, int n, int *exponent /* [16] */) {
  v16 top = v_set(0);
  for (int i = 0; i < n; i++) top = v_max(top, v_max(x[i], v_sub(v_set(0), x[i])));
  float a[LANES];
  v_store(a, top);
  for (int l = 0; l < LANES; l++) {
    int e = (int)(pl_f32_bits(a[l]) >> 23);
    exponent[l] = (e ? e : 1) - 127;
    a[l] = e == 254 ? 0x1p-127f : pl_bits_f32((uint32_t)(254 - (e ? e : 1)) << 23);
  }
  return v_load(a);
}

/* The scale is a power of two: those at which the greatest value is at 8 .. 16, at half and at twice that are tried, the
 * values being brought near 1 first, since their squares might overflow. */
PL_ENC(MXFP4) {
  uint8_t *to = dst;
  for (int64_t b = 0; b < n / 32; b += LANES, to += LANES * 17) {
    int live = n / 32 - b < LANES ? (int)(n / 32 - b) : LANES, exponent[LANES];
    v16 v[32], u[32], best = v_set(3e38f), scale = v_set(1), code = v_set(0);
    super_take(x, w, cols, 32, b, n / 32, v, u);
    v16 down = enc_exponents(v, 32, exponent);
    for (int i = 0; i < 32; i++) v[i] = v_mul(v[i], down);
    for (int k = -1; k <= 1; k++) {
      float s[LANES], e[LANES];
      for (int l = 0; l < LANES; l++) {
        int bits = exponent[l] + 125 + k, least = bits < 0 ? 0 : bits;
        e[l] = (float)least;
        s[l] = pl_bits_f32((uint32_t)(least - 128 - exponent[l] + 127) << 23);
      }
      enc_trial t = enc_try(v, u, 32, v_load(s), &e2m1_book);
      m16 better = v_gt(best, t.error);
      best = v_select(better, t.error, best);
      scale = v_select(better, v_load(s), scale);
      code = v_select(better, v_load(e), code);
    }
    v16 inv = enc_inverse(scale);
    uint8_t c[32 * LANES], e[LANES], spare[17], *p[LANES];
    for (int i = 0; i < 32; i++)
      v_bytes(c + i * LANES, v_lookup(e2m1_codes, enc_find(v_mul(v[i], inv), e2m1_cuts)));
    v_bytes(e, code);
    table_places(to, 17, live, spare, p);
    for (int l = 0; l < LANES; l++) *p[l]++ = e[l];
    table_nibbles(c, 32, p);
  }
}

/* The unsigned E4M3 code, 0 .. 126, of the number nearest to twice x >= 0. */
static int ue4m3_code(float x) {
  float v = x * 2;
  if (v >= 448) return 126;
  if (v < 0x1p-6f) return (int)(v * 512 + 0.5f);
  return (int)((pl_f32_bits(v) - ((uint32_t)(127 - 7) << 23) + (1u << 19)) >> 20);
}

/* Sub-blocks of 16 with a scale each, of which the nearest to the fitted one and two on either side are tried. */
PL_ENC(NVFP4) {
  static const float edge[] = {12.0f, 11.0f, 13.0f, 10.0f, 8.0f, 9.0f, 15.0f};
  uint8_t *to = dst;
  for (int64_t b = 0; b < n / 16; b += LANES, to += LANES / 4 * 36) {
    int live = n / 16 - b < LANES ? (int)(n / 16 - b) : LANES;
    v16 v[16], u[16], best = v_set(3e38f), scale = v_set(0), code = v_set(0);
    super_take(x, w, cols, 16, b, n / 16, v, u);
    float d[LANES], e[LANES];
    v16 fit = fit_scale(v, u, 16, &e2m1_book, edge, 7, 1);
    v_store(d, v_max(fit, v_sub(v_set(0), fit)));
    int near[LANES];
    for (int l = 0; l < LANES; l++) near[l] = ue4m3_code(d[l]);
    for (int k = -2; k <= 2; k++) {
      for (int l = 0; l < LANES; l++) {
        int at = near[l] + k, held = at < 0 ? 0 : at > 126 ? 126 : at;
        e[l] = (float)held;
        d[l] = pl_ue4m3_half((uint8_t)held);
      }
      enc_trial t = enc_try(v, u, 16, v_load(d), &e2m1_book);
      m16 better = v_gt(best, t.error);
      best = v_select(better, t.error, best);
      scale = v_select(better, v_load(d), scale);
      code = v_select(better, v_load(e), code);
    }
    v16 inv = enc_inverse(scale);
    uint8_t c[16 * LANES], q[16 * LANES], bits[LANES];
    for (int i = 0; i < 16; i++)
      v_bytes(c + i * LANES, v_lookup(e2m1_codes, enc_find(v_mul(v[i], inv), e2m1_cuts)));
    v_bytes(bits, code);
    super_order(c, 16, q);
    for (int l = 0; l < live; l++) {
      pl_block_nvfp4 *block = (void *)(to + l / 4 * 36);
      block->d[l % 4] = bits[l];
      for (int i = 0; i < 8; i++) block->qs[l % 4 * 8 + i] = (uint8_t)(q[l * 16 + i] | q[l * 16 + 8 + i] << 4);
    }
  }
}

/* Sixteen blocks of n <= 256 values each, codes -1, 0, 1 with one scale: codes plus one in order, q [16][n]. */
PL_INLINE void ternary(const float *x, const float *w, int64_t cols, int64_t first, int64_t last, uint16_t *h,
                       uint8_t *q) {
  static const float edge[] = {1.0f, 2.3f, 2.0f, 2.6f, 1.7f, 3.0f, 1.4f, 3.5f};
  static const enc_book book = {-1, 1, NULL, NULL};
  v16 v[256], u[256];
  super_take(x, w, cols, 256, first, last, v, u);
  v16 d = fit_scale(v, u, 256, &book, edge, 8, 1), inv;
  inv = enc_inverse(enc_half(v_max(d, v_sub(v_set(0), d)), h));
  uint8_t c[256 * LANES];
  for (int i = 0; i < 256; i++) v_bytes(c + i * LANES, v_add(enc_nearest(v_mul(v[i], inv), &book), v_set(1)));
  super_order(c, 256, q);
}

/* n ternary digits of q, stride apart, as a fraction in base 3 of 256. */
static uint8_t digits(const uint8_t *q, int stride, int n) {
  int v = 0;
  for (int i = 0; i < 5; i++) v = v * 3 + (i < n ? q[i * stride] : 0);
  return (uint8_t)((v * 256 + 242) / 243);
}

PL_ENC(TQ1_0) {
  pl_block_tq1_0 *to = dst;
  for (int64_t b = 0; b < n / 256; b += LANES) {
    uint16_t h[LANES];
    uint8_t all[256 * LANES], *q = all;
    ternary(x, w, cols, b, n / 256, h, all);
    for (int l = 0; l < LANES && b + l < n / 256; l++, to++, q += 256) {
      for (int i = 0; i < 32; i++) to->qs[i] = digits(q + i, 32, 5);
      for (int i = 0; i < 16; i++) to->qs[32 + i] = digits(q + 160 + i, 16, 5);
      for (int i = 0; i < 4; i++) to->qh[i] = digits(q + 240 + i, 4, 4);
      memcpy(&to->d, h + l, 2);
    }
  }
}

PL_ENC(TQ2_0) {
  pl_block_tq2_0 *to = dst;
  for (int64_t b = 0; b < n / 256; b += LANES) {
    uint16_t h[LANES];
    uint8_t all[256 * LANES], *q = all;
    ternary(x, w, cols, b, n / 256, h, all);
    for (int l = 0; l < LANES && b + l < n / 256; l++, to++, q += 256) {
      put_pairs(q, to->qs);
      memcpy(&to->d, h + l, 2);
    }
  }
}

/* Signs and the weighted mean magnitude, which is what least squares gives for them. */
PL_ENC(Q1_0) {
  pl_block_q1_0 *to = dst;
  for (int64_t b = 0; b < n / 128; b += LANES) {
    v16 v[128], u[128], s = v_set(0), t = v_set(0);
    super_take(x, w, cols, 128, b, n / 128, v, u);
    uint8_t c[128 * LANES], q[128 * LANES];
    for (int i = 0; i < 128; i++) {
      v16 below = v_sub(v_set(0), v[i]);
      s = v_add(s, v_mul(u[i], v_max(v[i], below)));
      t = v_add(t, u[i]);
      v_bytes(c + i * LANES, v_select(v_gt(v_set(0), v[i]), v_set(0), v_set(1)));
    }
    uint16_t h[LANES];
    enc_half(v_div(s, t), h);
    super_order(c, 128, q);
    for (int l = 0; l < LANES && b + l < n / 128; l++, to++) {
      for (int i = 0; i < 16; i++) {
        const uint8_t *bit = q + l * 128 + i * 8;
        int byte = 0;
        for (int k = 0; k < 8; k++) byte |= bit[k] << k;
        to->qs[i] = (uint8_t)byte;
      }
      memcpy(&to->d, h + l, 2);
    }
  }
}
