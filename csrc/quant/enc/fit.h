/* fit.h: the scale (and minimum) of sixteen blocks at once, one per lane, by weighted least squares.
 *
 * For fixed codes the scale that minimizes the weighted squared error is known in closed form, and for a fixed scale the
 * codes are the nearest ones. Some scales near those that just span the block are tried, each with its codes and then its
 * least-squares scale, and the best is kept (Lloyd's k-means, 1957/1982, with codewords on a line, from several starts).
 * Sums are taken in ascending order in each lane, so that every level computes the same bits. */
#ifndef PL_ENC_FIT_H
#define PL_ENC_FIT_H

/* Included after a room's lanes.h. */

/* The encoder of a type in this room. */
#define PL_ENC_2(type, level) \
  void pl_enc_##type##_##level(const float *x, const float *w, int64_t cols, int64_t n, void *dst)
#define PL_ENC_1(type, level) PL_ENC_2(type, level)
#define PL_ENC(type) PL_ENC_1(type, LEVEL)

enum { LANES = 16 };
/* Blocks with no value above this are zero: no scale that a half float holds (2^-24 and up) stands for such values. */
#define ENC_TINY 0x1p-30f
#define ENC_HALF_MAX 65504.0f

/* To whole numbers, ties to even, |x| < 2^22. */
PL_INLINE v16 enc_round(v16 x) { return v_sub(v_add(x, v_set(12582912.0f)), v_set(12582912.0f)); }
PL_INLINE v16 enc_clamp(v16 x, float lo, float hi) { return v_min(v_max(x, v_set(lo)), v_set(hi)); }
PL_INLINE v16 enc_codes(v16 x, v16 inv, float lo, float hi) { return enc_round(enc_clamp(v_mul(x, inv), lo, hi)); }
/* a / b, or 0 where b is not positive. */
PL_INLINE v16 enc_ratio(v16 a, v16 b) {
  m16 ok = v_gt(b, v_set(0));
  return v_select(ok, v_div(a, v_select(ok, b, v_set(1))), v_set(0));
}
/* 1 / d, or 0 where d is 0. */
PL_INLINE v16 enc_inverse(v16 d) {
  m16 ok = v_gt(v_mul(d, d), v_set(0));
  return v_select(ok, v_div(v_set(1), v_select(ok, d, v_set(1))), v_set(0));
}
/* To half precision, beyond its range the greatest. */
PL_INLINE v16 enc_half(v16 d, uint16_t *h /* [16] */) {
  return v_half(enc_clamp(d, -ENC_HALF_MAX, ENC_HALF_MAX), h);
}

/* The value of largest magnitude, signed, of x [n]; and 1 over it, or 0 where it is tiny. */
PL_INLINE v16 enc_top(const v16 *x, int n, v16 *inv) {
  v16 lo = v_set(0), hi = v_set(0);
  for (int i = 0; i < n; i++) {
    lo = v_min(lo, x[i]);
    hi = v_max(hi, x[i]);
  }
  v16 below = v_sub(v_set(0), lo);
  v16 top = v_select(v_gt(below, hi), lo, hi);
  m16 ok = v_gt(v_max(below, hi), v_set(ENC_TINY));
  *inv = v_select(ok, v_div(v_set(1), v_select(ok, top, v_set(1))), v_set(0));
  return top;
}

/* What codes stand for: the whole numbers lo .. hi, or sixteen ascending values, each nearest up to its cut. */
typedef struct {
  float lo, hi;
  const float *values, *cuts; /* NULL or [16] */
} enc_book;

/* Where in the sixteen values the one nearest to x is. */
PL_INLINE v16 enc_find(v16 x, const float *cuts) {
  v16 at = v_select(v_gt(x, v_set(cuts[7])), v_set(8), v_set(0));
  for (int step = 4; step; step /= 2) {
    v16 cut = v_lookup(cuts, v_add(at, v_set((float)(step - 1))));
    at = v_add(at, v_select(v_gt(x, cut), v_set((float)step), v_set(0)));
  }
  return at;
}

/* The value of the book that is nearest to x. */
PL_INLINE v16 enc_nearest(v16 x, const enc_book *book) {
  if (book->values) return v_lookup(book->values, enc_find(x, book->cuts));
  return enc_round(enc_clamp(x, book->lo, book->hi));
}

/* sum w x q and sum w q^2 for the q nearest to x [n] * inv; w NULL: ones. */
PL_INLINE void enc_sums(const v16 *x, const v16 *w, int n, v16 inv, const enc_book *book, v16 *xq, v16 *qq) {
  v16 s = v_set(0), t = v_set(0);
  for (int i = 0; i < n; i++) {
    v16 q = enc_nearest(v_mul(x[i], inv), book), wq = w ? v_mul(w[i], q) : q;
    s = v_add(s, v_mul(wq, x[i]));
    t = v_add(t, v_mul(wq, q));
  }
  *xq = s;
  *qq = t;
}

/* x [n] ~ d * q, q in the book: the d that is best of n_edges starts, where the greatest value is at edge[k], and of as
 * many refits of it. */
PL_INLINE v16 fit_scale(const v16 *x, const v16 *w, int n, const enc_book *book, const float *edge, int n_edges,
                        int refits) {
  v16 inv, best = v_set(0), d = v_set(0);
  enc_top(x, n, &inv);
  for (int k = 0; k < n_edges + refits; k++) {
    v16 xq, qq;
    enc_sums(x, w, n, k < n_edges ? v_mul(inv, v_set(edge[k])) : enc_inverse(d), book, &xq, &qq);
    v16 fit = enc_ratio(xq, qq), gain = v_mul(fit, xq); /* what the squared error is less than sum w x^2 */
    m16 better = v_gt(gain, best);
    best = v_select(better, gain, best);
    d = v_select(better, fit, d);
  }
  return d;
}

/* What fit_affine sums over a block for codes q: y is x less the block's minimum. */
typedef struct {
  v16 w, y, q, qq, yq;
} enc_affine;

PL_INLINE enc_affine enc_affine_sums(const v16 *y, const v16 *w, int n, v16 inv, v16 shift, float hi) {
  enc_affine s = {v_set(0), v_set(0), v_set(0), v_set(0), v_set(0)};
  for (int i = 0; i < n; i++) {
    v16 q = enc_round(enc_clamp(v_add(v_mul(y[i], inv), shift), 0, hi)), wq = w ? v_mul(w[i], q) : q;
    if (w) {
      s.w = v_add(s.w, w[i]);
      s.y = v_add(s.y, v_mul(w[i], y[i]));
    } else
      s.y = v_add(s.y, y[i]);
    s.q = v_add(s.q, wq);
    s.qq = v_add(s.qq, v_mul(wq, q));
    s.yq = v_add(s.yq, v_mul(wq, y[i]));
  }
  if (!w) s.w = v_set((float)n);
  return s;
}

/* The least-squares d and m of y ~ d * q + m and by how much the squared error is less than
 * sum w y^2; where most is given, with m at most that. */
PL_INLINE v16 enc_affine_solve(const enc_affine *s, const v16 *most, v16 *d, v16 *m) {
  v16 det = v_sub(v_mul(s->w, s->qq), v_mul(s->q, s->q));
  v16 top = v_sub(v_mul(s->w, s->yq), v_mul(s->y, s->q));
  /* all codes alike: det is 0, or what rounding left of it */
  m16 ok = v_gt(det, v_mul(v_mul(s->w, s->qq), v_set(1e-6f)));
  *d = v_select(ok, v_div(top, v_select(ok, det, v_set(1))), v_set(0));
  *m = v_div(v_sub(s->y, v_mul(*d, s->q)), s->w);
  v16 gain = v_add(v_mul(*d, s->yq), v_mul(*m, s->y));
  if (!most) return gain;
  /* where m is held, d alone is fitted */
  m16 held = v_gt(*m, *most);
  v16 rest = v_sub(s->yq, v_mul(*most, s->q)), alone = enc_ratio(rest, s->qq);
  v16 of_m = v_mul(*most, v_sub(v_add(s->y, s->y), v_mul(*most, s->w)));
  *d = v_select(held, alone, *d);
  *m = v_select(held, *most, *m);
  return v_select(held, v_add(v_mul(alone, rest), of_m), gain);
}

/* The least of x [n] (and 0, if asked for), y = x less it, and 1 over the greatest of y, or 0 where it is tiny. */
PL_INLINE v16 enc_range(const v16 *x, int n, int zero, v16 *y, v16 *inv) {
  v16 lo = zero ? v_min(x[0], v_set(0)) : x[0], hi = x[0];
  for (int i = 1; i < n; i++) {
    lo = v_min(lo, x[i]);
    hi = v_max(hi, x[i]);
  }
  for (int i = 0; i < n; i++) y[i] = v_sub(x[i], lo);
  v16 span = v_sub(hi, lo);
  m16 ok = v_gt(span, v_set(ENC_TINY));
  *inv = v_select(ok, v_div(v_set(1), v_select(ok, span, v_set(1))), v_set(0));
  return lo;
}

/* Where fit_affine starts: the block's range is first, first + step, ... codes wide, n widths, each (if sides is 3) so that
 * what is too wide or too narrow lies above the codes, on both sides, or below them, or (if it is 1) on both sides. */
typedef struct {
  float first, step;
  int n, sides;
} enc_grid;

/* x [n] ~ d * q + m, q in 0 .. hi, and m at most 0 if `below`: the best of the grid, and of so many refits of it. y [n] is working
 * memory. */
PL_INLINE v16 fit_affine(const v16 *x, const v16 *w, int n, float hi, int below, const enc_grid *grid, int refits,
                         v16 *y, v16 *min) {
  v16 inv, lo = enc_range(x, n, below, y, &inv), best = v_set(-1), d = v_set(0), m = v_set(0);
  v16 most = v_sub(v_set(0), lo);
  int starts = grid->n * grid->sides;
  for (int k = 0; k < starts + refits; k++) {
    float width = grid->first + grid->step * (float)(k / grid->sides);
    float part = grid->sides == 1 ? 0.5f : 0.5f * (float)(k % grid->sides);
    v16 by = k < starts ? v_mul(inv, v_set(width)) : enc_inverse(d), fit, base;
    v16 shift = k < starts ? v_set((hi - width) * part) : v_sub(v_set(0), v_mul(m, by));
    enc_affine s = enc_affine_sums(y, w, n, by, shift, hi);
    v16 gain = enc_affine_solve(&s, below ? &most : NULL, &fit, &base);
    m16 better = v_gt(gain, best);
    best = v_select(better, gain, best);
    d = v_select(better, fit, d);
    m = v_select(better, base, m);
  }
  *min = v_add(m, lo);
  return d;
}

/* The sum, or the greatest, of each `group` lanes, in all of them. */
PL_INLINE v16 enc_group_sum(v16 x, int group) {
  float a[LANES];
  v_store(a, x);
  for (int l = 0; l < LANES; l += group) {
    float s = a[l];
    for (int i = 1; i < group; i++) s += a[l + i];
    for (int i = 0; i < group; i++) a[l + i] = s;
  }
  return v_load(a);
}
PL_INLINE v16 enc_group_max(v16 x, int group) {
  float a[LANES];
  v_store(a, x);
  for (int l = 0; l < LANES; l += group) {
    float s = a[l];
    for (int i = 1; i < group; i++) s = a[l + i] > s ? a[l + i] : s;
    for (int i = 0; i < group; i++) a[l + i] = s;
  }
  return v_load(a);
}

/* ---- blocks to lanes ---- */

/* Sixteen blocks of a run of them, from the one at `first`; those past the end repeat its first. */
typedef struct {
  const float *x[LANES], *w[LANES];
  int live;
} enc_group;

/* Blocks (or sub-blocks) of n values; the weights are those of the columns. */
PL_INLINE enc_group enc_take(const float *x, const float *w, int64_t cols, int64_t n, int64_t first,
                             int64_t last) {
  enc_group g;
  g.live = last - first < LANES ? (int)(last - first) : LANES;
  for (int l = 0; l < LANES; l++) {
    int64_t b = first + (l < g.live ? l : 0);
    g.x[l] = x + b * n;
    g.w[l] = w ? w + b * n % cols : NULL;
  }
  return g;
}

/* t [n] = the values of the blocks side by side, n a multiple of 16. */
PL_INLINE void enc_columns(const float *const *p, int n, v16 *t) {
  for (int i = 0; i < n; i += 16) {
    const float *q[LANES];
    for (int l = 0; l < LANES; l++) q[l] = p[l] + i;
    v_columns(q, t + i);
  }
}

#endif
