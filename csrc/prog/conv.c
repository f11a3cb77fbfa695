/* conv.c: causal convolutions over a sequence.
 *
 * What a token needs of the tokens before it is state. Every page of the KV cache holds the state after its last token so
 * far, so that a full page brings it along wherever the page is found again, and a sequence goes on from its last page. */
#include <string.h>

#include "prog/program.h"

/* The state of columns [first, last) before the first token of sequence s: past [before][width], a ring in which position
 * p has row p % before. */
static void load_past(const pl_run_ctx *c, const pl_view *state, int32_t s, int32_t before, int64_t n,
                      int64_t first, int64_t width, float *past) {
  int32_t pos = c->step->pos[c->step->q_start[s]];
  memset(past, 0, sizeof(float) * (size_t)(before * width));
  if (pos == 0) return;
  const float *from = (const float *)pl_at(c, state, pl_page_of(c->step, s, pos - 1)) + first;
  for (int32_t j = 0; j < before; j++)
    memcpy(past + (pos + j) % before * width, from + j * n, sizeof(float) * (size_t)width);
}

/* Stores the ring after position pos of token t, if that ends a page or the sequence's part of the step. */
static void store_past(const pl_run_ctx *c, const pl_view *state, int32_t s, int32_t t, int32_t pos,
                       int32_t before, int64_t n, int64_t first, int64_t width, const float *past) {
  if ((pos + 1) % PL_PAGE && t + 1 < c->step->q_start[s + 1]) return;
  float *to = (float *)pl_at(c, state, pl_page_of(c->step, s, pos)) + first;
  for (int32_t j = 0; j < before; j++)
    memcpy(to + j * n, past + (pos + 1 + j) % before * width, sizeof(float) * (size_t)width);
}

/* y [width] = sum over j < before of w[j] * the token before - j ago; w rows are n apart. */
static void convolve(const float *past, const float *w, int32_t pos, int32_t before, int64_t n, int64_t width,
                     float *y) {
  for (int32_t j = 0; j < before; j++) {
    const float *p = past + (pos + j) % before * width;
    if (j == 0)
      for (int64_t e = 0; e < width; e++) y[e] = w[e] * p[e];
    else
      for (int64_t e = 0; e < width; e++) y[e] += w[j * n + e] * p[e];
  }
}

void pl_do_short_conv(const pl_run_ctx *c, const pl_op *op) {
  const pl_step *st = c->step;
  const pl_view *state = &op->dst[1];
  int32_t before = op->i[0] - 1;
  int64_t n = op->dst[0].cols, first, last, width;
  pl_my_rows(c, n, &first, &last);
  width = last - first;
  float *past = (float *)c->scratch;
  const float *w = (const float *)pl_at(c, &op->src[1], 0) + first;
  for (int32_t s = 0; s < st->n_seqs && width; s++) {
    int32_t t = st->q_start[s], pos = st->pos[t];
    load_past(c, state, s, before, n, first, width, past);
    for (; t < st->q_start[s + 1]; t++, pos++) {
      const float *b = (const float *)pl_at(c, &op->src[0], t) + first, *g = b + n, *x = g + n;
      float *y = (float *)pl_at(c, &op->dst[0], t) + first, *now = past + pos % before * width;
      convolve(past, w, pos, before, n, width, y);
      for (int64_t e = 0; e < width; e++) {
        now[e] = b[e] * x[e];
        y[e] = (y[e] + w[before * n + e] * now[e]) * g[e];
      }
      store_past(c, state, s, t, pos, before, n, first, width, past);
    }
  }
}

void pl_do_conv_silu(const pl_run_ctx *c, const pl_op *op) {
  const pl_step *st = c->step;
  const pl_view *state = &op->dst[1];
  int32_t before = op->i[0] - 1;
  int64_t n = op->dst[0].cols, first, last, width;
  pl_my_rows(c, n, &first, &last);
  width = last - first;
  float *past = (float *)c->scratch;
  const float *w = (const float *)pl_at(c, &op->src[1], 0) + first;
  const float *bias = (const float *)pl_at(c, &op->src[2], 0) + first;
  for (int32_t s = 0; s < st->n_seqs && width; s++) {
    int32_t t = st->q_start[s], pos = st->pos[t];
    load_past(c, state, s, before, n, first, width, past);
    for (; t < st->q_start[s + 1]; t++, pos++) {
      const float *x = (const float *)pl_at(c, &op->src[0], t) + first;
      float *y = (float *)pl_at(c, &op->dst[0], t) + first, *now = past + pos % before * width;
      convolve(past, w, pos, before, n, width, y);
      for (int64_t e = 0; e < width; e++) {
        float v = y[e] + w[before * n + e] * x[e] + bias[e];
        now[e] = x[e];
        y[e] = v / (1.0f + pl_exp(-v));
      }
      store_past(c, state, s, t, pos, before, n, first, width, past);
    }
  }
}

int64_t pl_conv_scratch(const pl_op *op) { return (op->i[0] - 1) * op->dst[0].cols * (int64_t)sizeof(float); }
