/* ssm.c: the state space layer of Mamba 2 (Dao and Gu 2024), token by token. Its state lies in the pages of the KV cache, see
 * conv.c. */
#include <string.h>

#include "prog/program.h"

static float softplus(float x) { return x > 20.0f ? x : log1pf(pl_exp(x)); }

/* One token of one head: state [p][n] goes on by x [p], B [n], C [n]; y [p]. */
static void scan(float *state, const float *x, const float *b, const float *c, int32_t p, int32_t n, float dt,
                 float a, float skip, float *y) {
  float keep = pl_exp(dt * a);
  for (int32_t i = 0; i < p; i++, state += n) {
    float in = dt * x[i], part[16] = {0};
    for (int32_t j = 0; j < n; j++) {
      state[j] = state[j] * keep + in * b[j];
      part[j & 15] += state[j] * c[j];
    }
    y[i] = pl_tree16(part) + skip * x[i];
  }
}

void pl_do_ssd(const pl_run_ctx *c, const pl_op *op) {
  const pl_step *st = c->step;
  const pl_view *view = &op->dst[1];
  int32_t heads = op->i[0], p = op->i[1], n = op->i[2], groups = op->i[3];
  const float *bias = pl_at(c, &op->src[2], 0), *a = bias + heads, *skip = a + heads;
  int64_t first, last, size = (int64_t)p * n;
  float *state = (float *)c->scratch;
  pl_my_rows(c, heads, &first, &last);
  for (int32_t s = 0; s < st->n_seqs; s++)
    for (int64_t h = first; h < last; h++) {
      int32_t t = st->q_start[s], pos = st->pos[t];
      if (pos == 0)
        memset(state, 0, sizeof(float) * (size_t)size);
      else
        memcpy(state, (const float *)pl_at(c, view, pl_page_of(st, s, pos - 1)) + h * size,
               sizeof(float) * (size_t)size);
      for (; t < st->q_start[s + 1]; t++, pos++) {
        const float *row = pl_at(c, &op->src[0], t), *b = row + heads * p + h / (heads / groups) * n;
        float dt = softplus(((const float *)pl_at(c, &op->src[1], t))[h] + bias[h]);
        scan(state, row + h * p, b, b + groups * n, p, n, dt, a[h], skip[h],
             (float *)pl_at(c, &op->dst[0], t) + h * p);
        if ((pos + 1) % PL_PAGE == 0 || t + 1 == st->q_start[s + 1])
          memcpy((float *)pl_at(c, view, pl_page_of(st, s, pos)) + h * size, state, sizeof(float) * (size_t)size);
      }
    }
}

int64_t pl_ssd_scratch(const pl_op *op) { return (int64_t)op->i[1] * op->i[2] * (int64_t)sizeof(float); }

int pl_ssd_ok(const pl_op *op) {
  int64_t heads = op->i[0], p = op->i[1], n = op->i[2], groups = op->i[3];
  if (heads < 1 || p < 1 || n < 1 || groups < 1 || heads > 1 << 16 || p > 1 << 16 || n > 1 << 16 || heads % groups)
    return 0;
  return op->dst[0].cols == heads * p && op->src[0].cols == heads * p + 2 * groups * n &&
         op->src[1].cols == heads && op->src[2].cols == 3 * heads && op->dst[1].cols == heads * p * n;
}
