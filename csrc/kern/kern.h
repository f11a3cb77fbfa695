/* kern.h: what a kernel promises, and the table of kernels.
 *
 * Every kernel is a function pl_<op>_<type>_<level> (or pl_<op>_<level> where no tensor type is involved), has one
 * line in kern.inc, and lives in csrc/kern/<level>/. ref/ is plain C that states the result; every other level
 * computes THE SAME BITS, faster. That is possible because each contract below fixes the order of the floating
 * point operations: a chain of fmaf in ascending order per output, or sixteen interleaved partial sums
 * (pl_tree16). checkkern demands equality. Output is therefore the same at every level, tile size, batch and
 * thread count.
 *
 * Shapes are written [rows][cols], row-major. PL_PANEL (16) weight rows make a panel. */
#ifndef PL_KERN_H
#define PL_KERN_H
#include <math.h>
#include <stdint.h>

#include "pyllm.h"
#include "quant/blocks.h"

/* deq: y [n] = the n values at src, exactly as the gguf package computes them in float32 (F64: rounded to
 * nearest). */
typedef void pl_deq_fn(const void *src, float *y, int64_t n);

/* enc: n values of whole rows of cols to blocks of a type. w [cols] in (0, 1], or NULL: ones. The values are finite and
 * within what quantize.c allows the type. What is computed is said by the sources that all rooms share, quant/enc/: in
 * each of sixteen lanes a block by itself, sums in ascending order, with no fused operations. */
typedef void pl_enc_fn(const float *x, const float *w, int64_t cols, int64_t n, void *dst);

/* mm: one panel of weight rows times nt activation rows.
 *   y [rows][16], y[at[t]][r] += sum over k of W[r][k] * a[t][k], for r in [0, nr); other columns of those rows are
 *   undefined.
 *   w: ref: nr plain rows, row_bytes apart. Other levels: one packed panel as their pack kernel wrote it (row_bytes
 *   and nr are then ignored and all 16 columns are written).
 *   a: nt activation rows, a_stride bytes apart: pl_q8 [k/32] or float [k], by the type's column in types.inc.
 *   at [nt]: the row of y that belongs to each of them, no two the same.
 * Order, per output, starting from acc = y[at[t]][r] and ascending in k; products in parentheses are rounded on their own:
 *   F32 F16 BF16    each k: acc = fmaf(w[k], x[k], acc), w converted exactly to float32
 *   Q4_0 Q5_0 Q8_0 IQ4_NL MXFP4
 *                   each block of 32: acc = fmaf((float)idot, (d_w * d_a), acc), idot = sum of (q - zero) * q_a or
 *                   value[q] * q_a; d_w of MXFP4 is half its scale (pl_e8m0_half), the values being doubled
 *   Q4_1 Q5_1       each block of 32: acc = fmaf((float)idot, (d_w * d_a), acc), then acc = fmaf(m_w, s_a, acc)
 *   Q4_K Q5_K       each sub-block of 32: acc = fmaf((float)idot, ((d * sc) * d_a), acc),
 *                   then acc = fmaf(-(dmin * m), s_a, acc)
 *   IQ4_XS          each sub-block of 32: acc = fmaf((float)idot, ((d * sc) * d_a), acc)
 *   Q3_K Q6_K       each 32 values: idot = sc0 * dot(first 16) + sc1 * dot(last 16) in int32, q less 4 or 32;
 *                   acc = fmaf((float)idot, (d * d_a), acc)
 *   Q2_K            likewise, then acc = fmaf(-(float)(m0 * h[0] + m1 * h[1]), (dmin * d_a), acc)
 * d_a, s_a, q_a and the sums h (and z, their sum negated) are the activation's (struct pl_q8). */
typedef void pl_mm_fn(const void *w, int64_t row_bytes, int32_t nr, int64_t k, const void *a, int64_t a_stride,
                      int32_t nt, const int32_t *at, float *y);

/* mm2: the same of two packed panels at once, w and the one `next` bytes after it, for levels that gain by it with many
 * tokens: y [rows][2][16], y[at[t]][p][r] += sum over k of W_p[r][k] * a[t][k]. */
typedef void pl_mm2_fn(const void *w, int64_t next, int64_t k, const void *a, int64_t a_stride, int32_t nt,
                       const int32_t *at, float *y);

/* pack: nr (<= 16) plain rows of k values, row_bytes apart, into one panel; missing rows become zeros.
 * panel_bytes(k) is the size of that panel, a multiple of 64. A panel is a sequence of equal parts, one for each
 * block of the type, panel_bytes(64 blocks) / 64 long: mm may be given any run of them, with k to match. No pack kernel:
 * the level's mm reads plain rows. */
typedef void pl_pack_fn(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel);
typedef int64_t pl_panel_bytes_fn(int64_t k);

/* quant: x [k] -> hi [k/32] and, unless NULL, lo [k/32]. Per block of 32:
 *   amax = max|x| (NaN ignored); d = amax / 127; inv = amax > 0 ? 127 / amax : 0;
 *   q = x * inv rounded to nearest, ties to even, or -127 where x * inv is not within (-127.5, 127.5) (infinite or
 *   NaN x, or an inv that overflowed): so |q| <= 127 always; h = the sums of both halves of q;
 *   z = -(sum of q); s = d * (float)(sum of q). lo quantizes r = fmaf(-d, (float)q, x) the same way. */
typedef void pl_quant_fn(const float *x, int64_t k, pl_q8 *hi, pl_q8 *lo);

/* rmsnorm: y [n] = x [n] * r * w [n], (x*r)*w, r = 1 / sqrtf(ss / n + eps), ss = sixteen interleaved fmaf sums of
 * x*x folded by pl_tree16. y may be x. */
typedef void pl_rmsnorm_fn(const float *x, const float *w, int64_t n, float eps, float *y);

/* silu: y [n] = act(g [n]) * u [n]. silu(v) = v / (1 + pl_exp(-v)). y may be g. */
typedef void pl_silu_fn(const float *g, const float *u, int64_t n, float *y);

/* gelu: y [n] = gelu(g [n]) * u [n], or gelu(g [n]) where u is NULL: v / (1 + pl_exp(v * fmaf(-PL_GELU_3, v*v,
 * -PL_GELU_1))), which is the tanh form of Hendrycks and Gimpel 2016. y may be g. */
typedef void pl_gelu_fn(const float *g, const float *u, int64_t n, float *y);

/* softcap: x [n] = cap * tanh(x / cap) in place, as fmaf(-cap, 2 / (1 + pl_exp(x * (2 / cap))), cap). */
typedef void pl_softcap_fn(float *x, int64_t n, float cap);

/* rope: rotate n_heads heads of x in place, heads head_stride floats apart, by cs [n_rot/2][2] (cos, sin).
 * interleaved: pairs (2i, 2i+1), else (i, i + n_rot/2). a' = fmaf(a, c, -(b*s)), b' = fmaf(b, c, a*s). */
typedef void pl_rope_fn(float *x, int32_t n_heads, int64_t head_stride, int32_t n_rot, int32_t interleaved,
                        const float *cs);

/* Attention. The keys that a query sees are taken in chunks of PL_CHUNK (256), at fixed multiples of it, and a chunk
 * in blocks of PL_PAGE (16), each being one head's part of a page of the cache, in one of the layouts of prog/kv.h.
 * Rows are queries (some tokens, and the query heads that share the KV head), all taken over a block while it is at
 * hand.
 *
 * qk: s [nq][PL_CHUNK], of which columns [0, 16 nb) are written: the scores of nb <= 16 blocks k[0 .. nb) of the type's
 *   K layout, hd <= PL_HEAD_MAX values per key (hdp of quantized types).
 *   F32 F16 BF16: q is float, in panels of 8 rows, [hd][8] each: row r's value d at q[(r / 8 * hd + d) * 8 + r % 8];
 *     the rest of the last panel may be anything. Per score a chain of fmaf over d ascending, from 0, times scale.
 *   Q8_0 Q4_0: q is pl_q16 [nq][hd / 32]. Per score acc = 0, then acc = fmaf((float)idot, d, acc) per block of 32
 *     values of the page's offset, and then per block of the key: idot = sum of c * code in int32 (codes of Q4_0 less
 *     8), d its scale; s = acc * (d_q * scale).
 * softmax: given s [n] and the running maximum *m: new maximum (NaN scores passed over, -0 made +0),
 *   p = pl_exp(s - max) in place (0 beyond n up to the next multiple of 16; what lay there does not matter),
 *   returns their sum (sixteen interleaved sums, pl_tree16).
 * av: o [nq][hdp] += p . v over keys [j0, j1) of the chunk, p [nq][PL_CHUNK]; v[j / 16] is the block of key j in the
 *   type's V layout, hdp values per key. Keys ascending, F32 F16 BF16: o = fmaf(p[j], v[j], o); Q8_0 Q4_0:
 *   o = fmaf((p[j] * d), (float)code, o), d that of key j and value, codes of Q4_0 less 8.
 * merge: the state (m [nq], sum [nq], o [nq][hdp]) of the chunks so far takes in that of the next (mc, sumc, oc):
 *   top = max(m, mc), a = pl_exp(m - top), b = pl_exp(mc - top), sum = fmaf(sumc, b, sum * a),
 *   o = fmaf(oc, b, o * a), m = top; nothing changes where sumc = 0. It starts with m = -inf, sum = 0, o = 0.
 * ahead: of qk [nb] and of av [16] addresses of blocks that will be read next, which a kernel may prefetch. */
#define PL_CHUNK 256
#define PL_HEAD_MAX 1024
typedef void pl_qk_fn(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale,
                      float *s, const void *const *ahead);
typedef float pl_softmax_fn(float *s, int32_t n, float *m);
typedef void pl_av_fn(const float *p, int32_t nq, const void *const *v, int32_t j0, int32_t j1, int32_t hdp,
                      float *o, const void *const *ahead);
typedef void pl_merge_fn(int32_t nq, int32_t hdp, float *m, float *sum, float *o, const float *mc,
                         const float *sumc, const float *oc);

/* What quantized keys and values are made with; n is a multiple of 32.
 * rotate: x [n] in place, every h values (a power of two from 32 up, dividing n) by the Walsh-Hadamard matrix, not
 *   normalized: stages of width 1, 2, 4, ... h / 2, each turning (a, b) into (a + b, a - b). It spreads what only few
 *   values carry, and applied to queries and keys alike it changes their products only by the factor h.
 * quant16: x [n] -> q [n / 32]: amax = max|x| (NaN ignored), d = amax / 32639, inv = amax > 0 ? 32639 / amax : 0;
 *   c = x * inv rounded to nearest, ties to even, or -32639 where that is not within (-32639.5, 32639.5).
 * code8: x [n] -> q [n], d [n / 32] half floats, per 32 values: d = amax / 127 in float16, inv = d > 0 ? 1 / d : 0,
 *   q = x * inv rounded to nearest, ties to even, 127 if above that, -127 if below -127 or NaN.
 * code4: x [n] -> q [n] in 0 .. 15, d [n / 32], per 32 values: the best by squared error of eight scales. */
typedef void pl_rotate_fn(float *x, int32_t n, int32_t h);
typedef void pl_quant16_fn(const float *x, int32_t n, pl_q16 *q);
typedef void pl_code8_fn(const float *x, int32_t n, int8_t *q, uint16_t *d);
typedef void pl_code4_fn(const float *x, int32_t n, uint8_t *q, uint16_t *d);

/* load_f16, store_f16: n floats from n f16 values, and back with round to nearest even. store_bf16: to bfloat16
 * likewise; NaN keeps its upper bits and becomes quiet. */
typedef void pl_load_f16_fn(const uint16_t *x, int64_t n, float *y);
typedef void pl_store_f16_fn(const float *x, int64_t n, uint16_t *y);
typedef void pl_store_bf16_fn(const float *x, int64_t n, uint16_t *y);

typedef struct pl_kern_table {
  pl_deq_fn *deq[PL_N_TYPES];
  pl_enc_fn *enc[PL_N_TYPES];
  pl_mm_fn *mm[PL_N_TYPES];
  pl_mm2_fn *mm2[PL_N_TYPES];
  pl_pack_fn *pack[PL_N_TYPES];
  pl_panel_bytes_fn *panel_bytes[PL_N_TYPES];
  pl_quant_fn *quant;
  pl_rmsnorm_fn *rmsnorm;
  pl_silu_fn *silu;
  pl_gelu_fn *gelu;
  pl_softcap_fn *softcap;
  pl_rope_fn *rope;
  pl_qk_fn *qk[PL_N_TYPES];
  pl_softmax_fn *softmax;
  pl_av_fn *av[PL_N_TYPES];
  pl_merge_fn *merge;
  pl_rotate_fn *rotate;
  pl_quant16_fn *quant16;
  pl_code8_fn *code8;
  pl_code4_fn *code4;
  pl_load_f16_fn *load_f16;
  pl_store_f16_fn *store_f16;
  pl_store_bf16_fn *store_bf16;
} pl_kern_table;

enum pl_level {
#define PL_LEVEL(name, base) PL_LEVEL_##name,
#include "kern/levels.inc"
#undef PL_LEVEL
  PL_N_LEVELS
};

/* The tables, one per level, each starting as a copy of the one of the level that it builds on; built once, then
 * constant. */
const pl_kern_table *pl_kern_at(int level);
/* The table of the level in use. */
const pl_kern_table *pl_kern(void);

/* ---- shared scalar definitions: the one place that says what bits come out -------------------------------- */

/* Fold of sixteen partial sums: 16 -> 8 -> 4 -> 2 -> 1, adding the upper half to the lower. */
static inline float pl_tree16(const float *a) {
  float b[8], c[4];
  for (int i = 0; i < 8; i++) b[i] = a[i] + a[i + 8];
  for (int i = 0; i < 4; i++) c[i] = b[i] + b[i + 4];
  return (c[0] + c[2]) + (c[1] + c[3]);
}

/* e^x in float32, error under 2 ulp: x = n ln2 + r, a degree 6 polynomial in r, scaled by 2^n in two steps so that
 * underflow is gradual. x <= -104 gives 0, x >= 88.72284 gives +inf, NaN stays NaN. Coefficients: 1 / i!; the two parts
 * of ln 2 are Cody and Waite's, so that n times the first is exact; x is clamped to PL_EXP_LO .. PL_EXP_HI, where it has
 * become 0 or +inf. */
#define PL_EXP_LO (-104.0f)
#define PL_EXP_HI 89.0f
#define PL_LOG2E 1.44269504088896341f
#define PL_LN2_HI 0.693359375f
#define PL_LN2_LO (-2.12194440e-4f)
/* 2 sqrt(2 / pi), and times 0.044715 */
#define PL_GELU_1 1.5957691216057308f
#define PL_GELU_3 0.07135481627260025f
static inline float pl_exp(float x) {
  if (x != x) return x;
  if (x < PL_EXP_LO) x = PL_EXP_LO;
  if (x > PL_EXP_HI) x = PL_EXP_HI;
  float n = rintf(x * PL_LOG2E);
  float r = fmaf(-n, PL_LN2_HI, x);
  r = fmaf(-n, PL_LN2_LO, r);
  float p = 1.3888889e-3f;
  p = fmaf(p, r, 8.3333333e-3f);
  p = fmaf(p, r, 4.1666667e-2f);
  p = fmaf(p, r, 1.6666667e-1f);
  p = fmaf(p, r, 5.0e-1f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  int32_t e = (int32_t)n, e1 = e >> 1, e2 = e - e1;
  union {
    uint32_t u;
    float f;
  } a, b;
  a.u = (uint32_t)(e1 + 127) << 23;
  b.u = (uint32_t)(e2 + 127) << 23;
  return p * a.f * b.f;
}

#endif
