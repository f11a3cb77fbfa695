/* altup.c: ops of architectures that carry several residual streams (AltUp, Baykal et al. 2023) and of Gemma 3n's other
 * peculiarities. All are row-wise. Sums over a row are sixteen interleaved ones folded by pl_tree16, products rounded on
 * their own, so that every compiler makes the same bits. */
#include <string.h>

#include "prog/program.h"

static float dot(const float *a, const float *b, int64_t n) {
  float part[16] = {0};
  for (int64_t i = 0; i < n; i++) part[i & 15] += a[i] * b[i];
  return pl_tree16(part);
}

static float mean(const float *x, int64_t n) {
  float part[16] = {0};
  for (int64_t i = 0; i < n; i++) part[i & 15] += x[i];
  return pl_tree16(part) / (float)n;
}

void pl_do_slice(const pl_run_ctx *c, const pl_op *op) {
  int64_t first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  int64_t n = op->dst[0].cols / op->i[1], stride = op->src[0].cols / op->i[1];
  for (int64_t t = first; t < last; t++) {
    const float *x = (const float *)pl_at(c, &op->src[0], t) + op->i[0];
    float *y = pl_at(c, &op->dst[0], t);
    for (int32_t h = 0; h < op->i[1]; h++) memcpy(y + h * n, x + h * stride, sizeof(float) * (size_t)n);
  }
}

void pl_do_concat(const pl_run_ctx *c, const pl_op *op) {
  int64_t first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = pl_at(c, &op->dst[0], t);
    for (int32_t h = 0; h < op->i[0]; h++)
      for (int j = 0; j < 4 && op->src[j].buf >= 0; j++) {
        int64_t n = op->src[j].cols / op->i[0];
        memcpy(y, (const float *)pl_at(c, &op->src[j], t) + h * n, sizeof(float) * (size_t)n);
        y += n;
      }
  }
}

void pl_do_match_rms(const pl_run_ctx *c, const pl_op *op) {
  int64_t n = op->dst[0].cols, first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = pl_at(c, &op->dst[0], t);
    const float *x = pl_at(c, &op->src[1], t);
    float own = dot(y, y, n) / (float)n, factor = sqrtf(dot(x, x, n) / (float)n);
    factor /= sqrtf(own > op->f[0] ? own : op->f[0]);
    for (int64_t i = 0; i < n; i++) y[i] *= factor;
  }
}

void pl_do_sparsify(const pl_run_ctx *c, const pl_op *op) {
  int64_t n = op->dst[0].cols, first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    float *y = pl_at(c, &op->dst[0], t), part[16] = {0}, m = mean(y, n);
    for (int64_t i = 0; i < n; i++) part[i & 15] += (y[i] - m) * (y[i] - m);
    float least = m + sqrtf(pl_tree16(part) / (float)n) * op->f[0];
    for (int64_t i = 0; i < n; i++) y[i] = y[i] > least ? y[i] - least : 0;
  }
}

/* coefs [rows] = matrix [rows][n] of src1 by tanh(router . rmsnorm(x)); src1 holds norm [d], router [n][d], matrix. */
static void coefficients(const pl_run_ctx *c, const pl_op *op, const float *x, int64_t d, int rows, float *coefs) {
  int n = op->i[0];
  const float *w = pl_at(c, &op->src[1], 0), *router = w + d, *matrix = router + n * d;
  float *normed = (float *)c->scratch, mode[PL_STREAMS];
  c->kern->rmsnorm(x, w, d, op->f[0], normed);
  for (int j = 0; j < n; j++) mode[j] = tanhf(dot(router + j * d, normed, d));
  for (int r = 0; r < rows; r++) {
    coefs[r] = 0;
    for (int j = 0; j < n; j++) coefs[r] += matrix[r * n + j] * mode[j];
  }
}

void pl_do_altup_predict(const pl_run_ctx *c, const pl_op *op) {
  int n = op->i[0];
  int64_t d = op->dst[0].cols / n, first, last;
  float a[PL_STREAMS * PL_STREAMS];
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *x = pl_at(c, &op->src[0], t);
    float *y = pl_at(c, &op->dst[0], t);
    coefficients(c, op, x + op->i[1] * d, d, n * n, a);
    for (int j = 0; j < n; j++) {
      float *yj = y + j * d;
      for (int64_t e = 0; e < d; e++) yj[e] = x[e] * a[j * n];
      for (int i = 1; i < n; i++)
        for (int64_t e = 0; e < d; e++) yj[e] += x[i * d + e] * a[j * n + i];
      for (int64_t e = 0; e < d; e++) yj[e] += x[j * d + e];
    }
  }
}

void pl_do_altup_correct(const pl_run_ctx *c, const pl_op *op) {
  int n = op->i[0];
  int64_t d = op->dst[0].cols / n, first, last;
  float a[PL_STREAMS];
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *x = pl_at(c, &op->src[2], t);
    float *y = pl_at(c, &op->dst[0], t), *change = (float *)c->scratch;
    coefficients(c, op, x, d, n, a);
    for (int64_t e = 0; e < d; e++) change[e] = x[e] - y[op->i[1] * d + e];
    for (int j = 0; j < n; j++)
      for (int64_t e = 0; e < d; e++) y[j * d + e] += change[e] * (a[j] + 1.0f);
  }
}

void pl_do_altup_add(const pl_run_ctx *c, const pl_op *op) {
  int n = op->i[0];
  int64_t d = op->dst[0].cols / n, first, last;
  pl_my_rows(c, c->step->n_tokens, &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *x = pl_at(c, &op->src[1], t);
    float *y = pl_at(c, &op->dst[0], t);
    for (int j = 0; j < n; j++)
      for (int64_t e = 0; e < d && j != op->i[1]; e++) y[j * d + e] += x[e];
  }
}

int64_t pl_altup_scratch(const pl_op *op) { return op->dst[0].cols / op->i[0] * (int64_t)sizeof(float); }

int pl_altup_ok(const pl_op *op) {
  int64_t n = op->i[0], d;
  if (n < 1 || n > PL_STREAMS || op->i[1] < 0 || op->i[1] >= n || op->dst[0].cols % n) return 0;
  d = op->dst[0].cols / n;
  switch (op->kind) {
    case PL_OP_altup_predict:
      return op->src[0].cols == n * d && op->src[1].cols == d + n * d + n * n * n;
    case PL_OP_altup_correct:
      return op->src[2].cols == d && op->src[1].cols == d + n * d + n * n;
    default:
      return op->src[1].cols == d;
  }
}
