/* conv.c: causal convolutions over a sequence.
 *
 * What a token needs of the tokens before it is state. Every page of the KV cache holds the state after its last token so
 * far, so that a full page brings it along wherever the page is found again, and a sequence goes on from its last page. */
#include <string.h>

#include "prog/program.h"

/* The page that position pos of sequence s lies in. */
static int32_t page_of(const pl_step *st, int32_t s, int32_t pos) {
  return st->page[(int64_t)s * st->max_pages + pos / PL_PAGE];
}

void pl_do_short_conv(const pl_run_ctx *c, const pl_op *op) {
  const pl_step *st = c->step;
  const pl_view *state = &op->dst[1];
  int32_t before = op->i[0] - 1;
  int64_t n = op->dst[0].cols, first, last, width;
  pl_my_rows(c, n, &first, &last);
  width = last - first;
  if (!width) return;
  float *past = (float *)c->scratch; /* [before][width], a ring: token t's B*X goes to row t % before */
  const float *w = (const float *)pl_at(c, &op->src[1], 0) + first;
  for (int32_t s = 0; s < st->n_seqs; s++) {
    int32_t t = st->q_start[s], pos = st->pos[t];
    memset(past, 0, sizeof(float) * (size_t)(before * width));
    if (pos > 0) {
      const float *from = (const float *)pl_at(c, state, page_of(st, s, pos - 1)) + first;
      for (int32_t j = 0; j < before; j++)
        memcpy(past + (pos + j) % before * width, from + j * n, sizeof(float) * (size_t)width);
    }
    for (; t < st->q_start[s + 1]; t++, pos++) {
      const float *b = (const float *)pl_at(c, &op->src[0], t) + first, *g = b + n, *x = g + n;
      float *y = (float *)pl_at(c, &op->dst[0], t) + first, *now = past + pos % before * width;
      const float *oldest = now; /* of the token `before` tokens ago, overwritten last */
      for (int64_t e = 0; e < width; e++) y[e] = w[e] * oldest[e];
      for (int32_t j = 1; j < before; j++) {
        const float *p = past + (pos + j) % before * width;
        for (int64_t e = 0; e < width; e++) y[e] += w[j * n + e] * p[e];
      }
      for (int64_t e = 0; e < width; e++) {
        now[e] = b[e] * x[e];
        y[e] = (y[e] + w[before * n + e] * now[e]) * g[e];
      }
      if ((pos + 1) % PL_PAGE == 0 || t + 1 == st->q_start[s + 1]) {
        float *to = (float *)pl_at(c, state, page_of(st, s, pos)) + first;
        for (int32_t j = 0; j < before; j++)
          memcpy(to + j * n, past + (pos + 1 + j) % before * width, sizeof(float) * (size_t)width);
      }
    }
  }
}

int64_t pl_conv_scratch(const pl_op *op) { return (op->i[0] - 1) * op->dst[0].cols * (int64_t)sizeof(float); }
