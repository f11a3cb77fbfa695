/* ops.c: the row-wise ops. Every thread takes its own share of the rows (pl_my_rows), the same share in each op,
 * so that a chain of them over the same rows needs no barrier. */
#include <string.h>

#include "prog/program.h"
#include "quant/types.h"

void pl_put_act(const pl_run_ctx *c, const pl_op *op, int64_t t, const float *x, int64_t n, pl_q8 *hi, pl_q8 *lo) {
  int32_t row = op->dst[1].rows == PL_ROWS_O ? c->step->out[t] : (int32_t)t;
  if (!lo || op->f[7] == 0 || (float)c->step->pos[row] < op->f[6]) {
    c->kern->quant(x, n, hi, lo);
    return;
  }
  c->kern->quant(x, n, hi, NULL);
  float sum = 0;
  for (int64_t b = 0; b < n / 32; b++) sum += hi[b].d;
  float above = op->f[7] * sum / (float)(n / 32);
  pl_q8 again[8];
  for (int64_t u = 0, m; u < n / 32; u += m) {
    m = n / 32 - u < op->i[7] ? n / 32 - u : op->i[7];
    float sum2 = 0;
    for (int64_t b = 0; b < m; b++) sum2 += hi[u + b].d * hi[u + b].d;
    if (sum2 > (float)m * above * above)
      c->kern->quant(x + u * 32, m * 32, again, lo + u);
    else
      memset(lo + u, 0, sizeof(pl_q8) * (size_t)m);
  }
}

/* The activation row t that op makes of y [n], in op->i[0] terms. */
static void put_row(const pl_run_ctx *c, const pl_op *op, const float *y, int64_t n, int64_t t) {
  pl_q8 *hi = pl_local_at(c, op, &op->dst[1], t);
  pl_put_act(c, op, t, y, n, hi, op->i[0] > 1 ? hi + n / 32 : NULL);
}

void pl_do_embed(const pl_run_ctx *c, const pl_op *op) {
  const pl_view *w = &op->src[0];
  int64_t first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = pl_at(c, &op->dst[0], t);
    c->kern->deq[w->type](pl_at(c, w, (op->i[0] ? c->step->pos : c->step->token)[t]), y, w->cols);
    if (op->f[0] != 1.0f)
      for (int64_t i = 0; i < w->cols; i++) y[i] *= op->f[0];
  }
}

void pl_do_rope_table(const pl_run_ctx *c, const pl_op *op) {
  const pl_step *st = c->step;
  int is_switched = op->src[1].buf >= 0 && st->long_rope;
  int64_t half = op->src[0].cols, first, last;
  int32_t s = 0;
  pl_my_rows(c, st->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    while (t >= st->q_start[s + 1]) s++;
    const float *inv_freq = pl_at(c, &op->src[is_switched && st->long_rope[s]], 0);
    float *y = pl_at(c, &op->dst[0], t), scale = op->f[0];
    if (op->i[0]) scale *= 1.0f + op->f[1] * (float)log(1.0 + (st->pos[t] + op->i[1]) / op->i[0]);
    for (int64_t i = 0; i < half; i++) {
      float angle = (float)st->pos[t] * inv_freq[i]; /* rounded to float32, as the models were trained */
      y[2 * i] = (float)cos((double)angle) * scale;
      y[2 * i + 1] = (float)sin((double)angle) * scale;
    }
  }
}

/* y [n] = (x - mean) / sqrt(variance + eps) * w (+ b), both sums being sixteen interleaved ones folded by pl_tree16. */
static void layernorm(const float *x, const float *w, const float *b, int64_t n, float eps, float *y) {
  float part[16] = {0};
  for (int64_t i = 0; i < n; i++) part[i & 15] += x[i];
  float mean = pl_tree16(part) / (float)n;
  memset(part, 0, sizeof part);
  for (int64_t i = 0; i < n; i++) part[i & 15] += (x[i] - mean) * (x[i] - mean);
  float r = 1.0f / sqrtf(pl_tree16(part) / (float)n + eps);
  for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * r * w[i];
  if (b)
    for (int64_t i = 0; i < n; i++) y[i] += b[i];
}

static void norm_rows(const pl_run_ctx *c, const pl_op *op) {
  const pl_view *x = &op->src[0], *act = &op->dst[1];
  const float *w = pl_at(c, &op->src[1], 0), *b = op->src[2].buf >= 0 ? pl_at(c, &op->src[2], 0) : NULL;
  float *tmp = (float *)c->scratch;
  int64_t first, last;
  pl_made_rows(c, op, pl_rows(c->step, op->dst[0].buf >= 0 ? &op->dst[0] : act), &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = op->dst[0].buf >= 0 ? pl_local_at(c, op, &op->dst[0], t) : tmp;
    const float *row = pl_at(c, x, t);
    if (op->kind == PL_OP_layernorm)
      layernorm(row, w, b, x->cols, op->f[0], y);
    else
      c->kern->rmsnorm(row, w, x->cols, op->f[0], y);
    if (act->buf >= 0) put_row(c, op, y, x->cols, t);
  }
}

void pl_do_rmsnorm(const pl_run_ctx *c, const pl_op *op) { norm_rows(c, op); }
void pl_do_layernorm(const pl_run_ctx *c, const pl_op *op) { norm_rows(c, op); }

void pl_do_head_norm(const pl_run_ctx *c, const pl_op *op) {
  const float *w = pl_at(c, &op->src[1], 0);
  int64_t first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *x = pl_at(c, &op->dst[0], t);
    for (int32_t h = 0; h < op->i[0]; h++, x += op->i[1]) c->kern->rmsnorm(x, w, op->i[1], op->f[0], x);
  }
}

void pl_do_quant(const pl_run_ctx *c, const pl_op *op) {
  int64_t first, last;
  pl_made_rows(c, op, pl_rows(c->step, &op->dst[1]), &first, &last);
  for (int64_t t = first; t < last; t++) put_row(c, op, pl_at(c, &op->src[0], t), op->src[0].cols, t);
}

void pl_do_gather(const pl_run_ctx *c, const pl_op *op) {
  int64_t first, last, n = op->src[0].cols;
  pl_made_rows(c, op, c->step->n_out, &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *x = pl_at(c, &op->src[0], c->step->out[t]);
    if (op->dst[0].buf >= 0) memcpy(pl_local_at(c, op, &op->dst[0], t), x, sizeof(float) * (size_t)n);
    if (op->dst[1].buf >= 0) put_row(c, op, x, n, t);
  }
}

void pl_do_rope(const pl_run_ctx *c, const pl_op *op) {
  int64_t first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++)
    c->kern->rope((float *)pl_at(c, &op->dst[0], t) + op->i[4], op->i[0], op->i[1], op->i[2], op->i[3],
                  pl_at(c, &op->src[1], t));
}

static float gelu_erf(float v) { return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f)); }

void pl_glu(const pl_run_ctx *c, int32_t kind, const float *g, const float *u, int64_t n, float *y) {
  if (kind == PL_GLU_SILU)
    c->kern->silu(g, u, n, y);
  else if (kind == PL_GLU_GELU)
    c->kern->gelu(g, u, n, y);
  else
    for (int64_t i = 0; i < n; i++) y[i] = u ? gelu_erf(g[i]) * u[i] : gelu_erf(g[i]);
}

static void glu_rows(const pl_run_ctx *c, const pl_op *op, int32_t kind) {
  const pl_view *act = &op->dst[1];
  int64_t n = op->src[0].cols, first, last;
  float *tmp = (float *)c->scratch;
  pl_my_rows(c, pl_rows(c->step, &op->src[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = op->dst[0].buf >= 0 ? pl_at(c, &op->dst[0], t) : tmp;
    const float *u = op->src[1].buf >= 0 ? pl_at(c, &op->src[1], t) : NULL;
    pl_glu(c, kind, pl_at(c, &op->src[0], t), u, n, y);
    if (act->buf >= 0) put_row(c, op, y, n, t);
  }
}

void pl_do_silu_mul(const pl_run_ctx *c, const pl_op *op) { glu_rows(c, op, PL_GLU_SILU); }
void pl_do_gelu(const pl_run_ctx *c, const pl_op *op) { glu_rows(c, op, op->i[1] ? PL_GLU_ERF : PL_GLU_GELU); }

void pl_do_add(const pl_run_ctx *c, const pl_op *op) {
  int64_t n = op->dst[0].cols, first, last;
  pl_my_rows(c, pl_rows(c->step, &op->dst[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *a = pl_at(c, &op->src[0], t), *b = pl_at(c, &op->src[1], t);
    float *y = pl_at(c, &op->dst[0], t);
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
  }
}

void pl_do_swiglu_clamped(const pl_run_ctx *c, const pl_op *op) {
  const pl_view *act = &op->dst[1];
  int64_t n = op->src[0].cols, first, last;
  const float limit = op->f[0], alpha = op->f[1];
  float *tmp = (float *)c->scratch, *gate = tmp + n, *up = gate + n;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = op->dst[0].buf >= 0 ? pl_at(c, &op->dst[0], t) : tmp;
    const float *g = pl_at(c, &op->src[0], t), *u = pl_at(c, &op->src[1], t);
    for (int64_t i = 0; i < n; i++) { /* silu(alpha m) / alpha is m sigmoid(alpha m) */
      gate[i] = alpha * (g[i] > limit ? limit : g[i]);
      up[i] = ((u[i] > limit ? limit : u[i] < -limit ? -limit : u[i]) + 1.0f) / alpha;
    }
    c->kern->silu(gate, up, n, y);
    if (act->buf >= 0) put_row(c, op, y, n, t);
  }
}

void pl_do_relu(const pl_run_ctx *c, const pl_op *op) {
  const pl_view *act = &op->dst[1];
  int64_t n = op->src[0].cols, first, last;
  float *tmp = (float *)c->scratch;
  pl_my_rows(c, pl_rows(c->step, &op->src[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = op->dst[0].buf >= 0 ? pl_at(c, &op->dst[0], t) : tmp;
    const float *x = pl_at(c, &op->src[0], t), *u = op->src[1].buf >= 0 ? pl_at(c, &op->src[1], t) : NULL;
    for (int64_t i = 0; i < n; i++) y[i] = x[i] < 0.0f ? 0.0f : u ? x[i] * u[i] : x[i];
    if (act->buf >= 0) put_row(c, op, y, n, t);
  }
}

void pl_do_xielu(const pl_run_ctx *c, const pl_op *op) {
  const pl_view *act = &op->dst[1];
  int64_t n = op->src[0].cols, first, last;
  const float below = op->f[0], above = op->f[1], slope = op->f[2], most = op->f[3];
  float *tmp = (float *)c->scratch;
  pl_my_rows(c, pl_rows(c->step, &op->src[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = op->dst[0].buf >= 0 ? pl_at(c, &op->dst[0], t) : tmp;
    const float *row = pl_at(c, &op->src[0], t);
    for (int64_t i = 0; i < n; i++) {
      float x = row[i];
      y[i] = x > 0.0f ? x * (above * x + slope) : below * (expm1f(x < most ? x : most) - x) + slope * x;
    }
    if (act->buf >= 0) put_row(c, op, y, n, t);
  }
}

void pl_do_clamp(const pl_run_ctx *c, const pl_op *op) {
  int64_t n = op->dst[0].cols, first, last;
  const float most = op->f[0];
  pl_my_rows(c, pl_rows(c->step, &op->dst[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = pl_at(c, &op->dst[0], t);
    for (int64_t i = 0; i < n; i++) y[i] = y[i] > most ? most : y[i] < -most ? -most : y[i];
  }
}

void pl_do_scale(const pl_run_ctx *c, const pl_op *op) {
  int64_t n = op->dst[0].cols, first, last;
  const float *w = op->src[1].buf >= 0 ? pl_at(c, &op->src[1], 0) : NULL;
  pl_my_rows(c, pl_rows(c->step, &op->dst[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = pl_at(c, &op->dst[0], t);
    for (int64_t i = 0; i < n; i++) y[i] *= w ? w[i] : op->f[0];
  }
}

void pl_do_softcap(const pl_run_ctx *c, const pl_op *op) {
  int64_t first, last, rows = pl_rows(c->step, &op->dst[0]);
  pl_my_rows(c, op->dst[0].cols, &first, &last);
  for (int64_t t = 0; t < rows; t++)
    c->kern->softcap((float *)pl_at(c, &op->dst[0], t) + first, last - first, op->f[0]);
}

int64_t pl_row_scratch(const pl_op *op) {
  switch (op->kind) {
    case PL_OP_rmsnorm:
    case PL_OP_silu_mul:
    case PL_OP_gelu:
    case PL_OP_relu:
    case PL_OP_xielu:
    case PL_OP_layernorm:
      return op->dst[0].buf >= 0 ? 0 : op->src[0].cols * (int64_t)sizeof(float);
    case PL_OP_swiglu_clamped:
      return 3 * op->src[0].cols * (int64_t)sizeof(float);
    case PL_OP_altup_predict:
    case PL_OP_altup_correct:
      return op->i[0] > 0 ? pl_altup_scratch(op) : 0;
    case PL_OP_ssd:
      return pl_ssd_scratch(op);
    case PL_OP_short_conv:
    case PL_OP_conv_silu:
      return op->i[0] > 1 ? pl_conv_scratch(op) : 0;
    default:
      return 0;
  }
}

pl_op_fn *const pl_op_fns[PL_N_OPS] = {
#define PL_OP(name, id) [id] = pl_do_##name,
#include "prog/op.inc"
#undef PL_OP
};
