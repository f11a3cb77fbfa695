/* super.h: blocks of 256 values whose sub-blocks, one per lane, share a scale (and a minimum) in half precision, of which
 * each has a whole multiple.
 *
 * First every sub-block is fitted by itself (fit.h). Then the shared scale and the multiples are improved in turns: for a
 * shared scale, each sub-block tries its multiple and the two next to it, each with its own codes, and keeps the one of
 * least weighted squared error; for these codes and multiples the shared scale follows by least squares over the whole
 * block. From several starts the best is kept. */
#ifndef PL_ENC_SUPER_H
#define PL_ENC_SUPER_H

#include "quant/enc/fit.h"

/* How a type searches: the multiples' range and what the greatest of them is at first, for each start; turns. */
typedef struct {
  float lo, hi;
  const float *start;
  int n_starts, turns;
} enc_multiples;

/* One of the codes' error and sums, for x [n] ~ d * q. */
typedef struct {
  v16 error, xq, qq;
} enc_trial;

PL_INLINE enc_trial enc_try(const v16 *x, const v16 *w, int n, v16 d, const enc_book *book) {
  enc_trial t = {v_set(0), v_set(0), v_set(0)};
  v16 inv = enc_inverse(d);
  for (int i = 0; i < n; i++) {
    v16 q = enc_nearest(v_mul(x[i], inv), book), wq = v_mul(w[i], q), r = v_sub(x[i], v_mul(d, q));
    t.error = v_add(t.error, v_mul(w[i], v_mul(r, r)));
    t.xq = v_add(t.xq, v_mul(wq, x[i]));
    t.qq = v_add(t.qq, v_mul(wq, q));
  }
  return t;
}

/* x [n] ~ D * sc * q, D common to `group` lanes and a half float: D, and sc by lane. */
PL_INLINE v16 fit_super(const v16 *x, const v16 *w, int n, int group, v16 each, const enc_book *book,
                        const enc_multiples *by, v16 *multiple) {
  uint16_t h[LANES];
  v16 best = v_set(3e38f), best_d = v_set(0), best_sc = v_set(0);
  /* of the greatest in magnitude, with its sign */
  v16 hi = enc_group_max(each, group), lo = enc_group_max(v_sub(v_set(0), each), group);
  v16 top = v_select(v_gt(lo, hi), v_sub(v_set(0), lo), hi);
  for (int s = 0; s < by->n_starts; s++) {
    v16 d = enc_half(v_mul(top, v_set(1 / by->start[s])), h);
    v16 sc = enc_round(enc_clamp(v_mul(each, enc_inverse(d)), by->lo, by->hi));
    for (int turn = 0; turn <= by->turns; turn++) {
      enc_trial t = enc_try(x, w, n, v_mul(d, sc), book);
      v16 centre = sc;
      for (int a = -1; a <= 1; a += 2) {
        v16 other = enc_clamp(v_add(centre, v_set((float)a)), by->lo, by->hi);
        enc_trial u = enc_try(x, w, n, v_mul(d, other), book);
        m16 better = v_gt(t.error, u.error);
        sc = v_select(better, other, sc);
        t.error = v_select(better, u.error, t.error);
        t.xq = v_select(better, u.xq, t.xq);
        t.qq = v_select(better, u.qq, t.qq);
      }
      v16 error = enc_group_sum(t.error, group);
      m16 better = v_gt(best, error);
      best = v_select(better, error, best);
      best_d = v_select(better, d, best_d);
      best_sc = v_select(better, sc, best_sc);
      d = enc_half(
          enc_ratio(enc_group_sum(v_mul(sc, t.xq), group), enc_group_sum(v_mul(v_mul(sc, sc), t.qq), group)), h);
    }
  }
  *multiple = best_sc;
  return best_d;
}

/* The same with minimums, for x [n] ~ d * q - m: sums over codes q. */
typedef struct {
  v16 error, q, qq, xq;
} enc_trial2;

PL_INLINE enc_trial2 enc_try2(const v16 *x, const v16 *w, int n, v16 d, v16 m, float hi) {
  enc_trial2 t = {v_set(0), v_set(0), v_set(0), v_set(0)};
  v16 inv = enc_inverse(d);
  for (int i = 0; i < n; i++) {
    v16 q = enc_round(enc_clamp(v_mul(v_add(x[i], m), inv), 0, hi)), wq = v_mul(w[i], q);
    v16 r = v_sub(v_add(x[i], m), v_mul(d, q));
    t.error = v_add(t.error, v_mul(w[i], v_mul(r, r)));
    t.q = v_add(t.q, wq);
    t.qq = v_add(t.qq, v_mul(wq, q));
    t.xq = v_add(t.xq, v_mul(wq, x[i]));
  }
  return t;
}

/* x [n] ~ D * sc * q - M * mm, D and M common to `group` lanes. */
typedef struct {
  v16 d, m, sc, mm;
} enc_super;

PL_INLINE enc_super fit_super2(const v16 *x, const v16 *w, int n, int group, v16 each, v16 each_min, float hi,
                               const enc_multiples *by) {
  uint16_t h[LANES];
  enc_super best = {v_set(0), v_set(0), v_set(0), v_set(0)};
  v16 least = v_set(3e38f), sw = v_set(0), sx = v_set(0);
  for (int i = 0; i < n; i++) {
    sw = v_add(sw, w[i]);
    sx = v_add(sx, v_mul(w[i], x[i]));
  }
  v16 top = enc_group_max(each, group), top_min = enc_group_max(each_min, group);
  for (int s = 0; s < by->n_starts; s++) {
    enc_super e;
    e.d = enc_half(v_mul(top, v_set(1 / by->start[s])), h);
    e.m = enc_half(v_mul(top_min, v_set(1 / by->start[s])), h);
    e.sc = enc_round(enc_clamp(v_mul(each, enc_inverse(e.d)), by->lo, by->hi));
    e.mm = enc_round(enc_clamp(v_mul(each_min, enc_inverse(e.m)), by->lo, by->hi));
    for (int turn = 0; turn <= by->turns; turn++) {
      enc_trial2 t = enc_try2(x, w, n, v_mul(e.d, e.sc), v_mul(e.m, e.mm), hi);
      v16 sc = e.sc, mm = e.mm;
      for (int k = 0; k < 9; k++) {
        if (k == 4) continue;
        v16 sc2 = enc_clamp(v_add(sc, v_set((float)(k / 3 - 1))), by->lo, by->hi);
        v16 mm2 = enc_clamp(v_add(mm, v_set((float)(k % 3 - 1))), by->lo, by->hi);
        enc_trial2 u = enc_try2(x, w, n, v_mul(e.d, sc2), v_mul(e.m, mm2), hi);
        m16 better = v_gt(t.error, u.error);
        e.sc = v_select(better, sc2, e.sc);
        e.mm = v_select(better, mm2, e.mm);
        t.error = v_select(better, u.error, t.error);
        t.q = v_select(better, u.q, t.q);
        t.qq = v_select(better, u.qq, t.qq);
        t.xq = v_select(better, u.xq, t.xq);
      }
      v16 error = enc_group_sum(t.error, group);
      m16 better = v_gt(least, error);
      least = v_select(better, error, least);
      best.d = v_select(better, e.d, best.d);
      best.m = v_select(better, e.m, best.m);
      best.sc = v_select(better, e.sc, best.sc);
      best.mm = v_select(better, e.mm, best.mm);
      /* the normal equations: D a - M b = p, D b - M c = r */
      v16 a = enc_group_sum(v_mul(v_mul(e.sc, e.sc), t.qq), group);
      v16 b = enc_group_sum(v_mul(v_mul(e.sc, e.mm), t.q), group);
      v16 c = enc_group_sum(v_mul(v_mul(e.mm, e.mm), sw), group);
      v16 p = enc_group_sum(v_mul(e.sc, t.xq), group), r = enc_group_sum(v_mul(e.mm, sx), group);
      v16 det = v_sub(v_mul(a, c), v_mul(b, b));
      m16 ok = v_gt(det, v_mul(v_mul(a, c), v_set(1e-5f)));
      v16 safe = v_select(ok, det, v_set(1));
      v16 alone = enc_ratio(v_add(p, v_mul(e.m, b)), a);
      e.d = enc_half(v_select(ok, v_div(v_sub(v_mul(p, c), v_mul(r, b)), safe), alone), h);
      e.m = enc_half(v_select(ok, v_div(v_sub(v_mul(p, b), v_mul(r, a)), safe), e.m), h);
    }
  }
  return best;
}

/* ---- blocks ---- */

/* The values and weights of sixteen sub-blocks of n, from sub-block `first` of all `last`. */
PL_INLINE void super_take(const float *x, const float *w, int64_t cols, int64_t n, int64_t first, int64_t last,
                          v16 *v, v16 *u) {
  enc_group g = enc_take(x, w, cols, n, first, last);
  enc_columns(g.x, (int)n, v);
  if (w)
    enc_columns(g.w, (int)n, u);
  else
    for (int i = 0; i < n; i++) u[i] = v_set(1);
}

/* Codes c [n][16] of sub-blocks to all of them in order, [16][n]. */
PL_INLINE void super_order(const uint8_t *c, int n, uint8_t *to) {
  for (int i = 0; i < n; i += 16) {
    uint8_t *p[LANES];
    for (int l = 0; l < LANES; l++) p[l] = to + l * n + i;
    v_scatter(c + i * LANES, p);
  }
}

/* Two bits of each code: those of four sub-blocks of 32 in 32 bytes. */
static inline void put_pairs(const uint8_t *q /* [256] */, uint8_t *to /* [64] */) {
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < 32; i++) {
      const uint8_t *c = q + half * 128 + i;
      to[half * 32 + i] = (uint8_t)((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
}

/* Writes a block from its 256 codes, multiples of its sub-blocks, and the bits of d and m. */
typedef void super_put(void *block, const uint8_t *q, const int8_t *sc, const int8_t *mm, uint16_t d, uint16_t m);

static inline void whole(v16 x, int8_t *p /* [16] */) {
  uint8_t bytes[LANES];
  v_bytes(bytes, x);
  memcpy(p, bytes, LANES);
}

/* All blocks of n values, in sub-blocks of `sub`; code0 is added to codes. */
PL_INLINE void enc_super1(const float *x, const float *w, int64_t cols, int64_t n, uint8_t *dst, int bytes,
                          int sub, const enc_book *book, float code0, const float *edge, int n_edges, int refits,
                          const enc_multiples *by, super_put *put) {
  int blocks = LANES * sub / 256, group = 256 / sub;
  for (int64_t b = 0; b < n / sub; b += LANES) {
    v16 v[32], u[32], sc;
    super_take(x, w, cols, sub, b, n / sub, v, u);
    v16 each = fit_scale(v, u, sub, book, edge, n_edges, refits);
    v16 d = fit_super(v, u, sub, group, each, book, by, &sc), inv = enc_inverse(v_mul(d, sc));
    uint8_t c[32 * LANES], q[32 * LANES];
    int8_t scales[LANES];
    uint16_t h[LANES];
    for (int i = 0; i < sub; i++)
      v_bytes(c + i * LANES, book->values ? enc_find(v_mul(v[i], inv), book->cuts)
                                          : v_add(enc_nearest(v_mul(v[i], inv), book), v_set(code0)));
    super_order(c, sub, q);
    whole(sc, scales);
    v_half(d, h);
    for (int i = 0; i < blocks && b + i * group < n / sub; i++, dst += bytes)
      put(dst, q + i * 256, scales + i * group, NULL, h[i * group], 0);
  }
}

PL_INLINE void enc_super2(const float *x, const float *w, int64_t cols, int64_t n, uint8_t *dst, int bytes,
                          int sub, float hi, const enc_grid *grid, int refits, const enc_multiples *by,
                          super_put *put) {
  int blocks = LANES * sub / 256, group = 256 / sub;
  for (int64_t b = 0; b < n / sub; b += LANES) {
    v16 v[32], u[32], y[32], min;
    super_take(x, w, cols, sub, b, n / sub, v, u);
    v16 each = fit_affine(v, u, sub, hi, 1, grid, refits, y, &min);
    enc_super e = fit_super2(v, u, sub, group, each, v_sub(v_set(0), min), hi, by);
    v16 inv = enc_inverse(v_mul(e.d, e.sc)), m = v_mul(e.m, e.mm);
    uint8_t c[32 * LANES], q[32 * LANES];
    int8_t sc[LANES], mm[LANES];
    uint16_t h[LANES], hm[LANES];
    for (int i = 0; i < sub; i++) v_bytes(c + i * LANES, enc_round(enc_clamp(v_mul(v_add(v[i], m), inv), 0, hi)));
    super_order(c, sub, q);
    whole(e.sc, sc);
    whole(e.mm, mm);
    v_half(e.d, h);
    v_half(e.m, hm);
    for (int i = 0; i < blocks && b + i * group < n / sub; i++, dst += bytes)
      put(dst, q + i * 256, sc + i * group, mm + i * group, h[i * group], hm[i * group]);
  }
}

#endif
