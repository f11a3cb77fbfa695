/* mm.c: matmul. Work items are panels of 16 weight rows; a thread claims some, and runs all tokens through each
 * panel while it is in the cache. Every output is one chain over k inside one kernel call, so neither the number
 * of threads nor of tokens changes a bit. */
#include "prog/program.h"
#include "quant/types.h"

enum { Y_ROWS = 64 }; /* activation rows per kernel call */

static int64_t align64(int64_t n) { return (n + 63) / 64 * 64; }

/* Where the mm kernel will find a panel. */
typedef struct source {
  const pl_view *w;
  int32_t type;      /* type the kernel runs on: the weight's, or F32 when the weight is widened */
  int32_t widen;     /* dequantize to plain float rows first */
  int32_t repack;    /* pack plain rows before the kernel */
  int64_t row_bytes; /* of the plain rows that the kernel or the packer reads */
} source;

static source source_of(const pl_kern_table *k, const pl_op *op) {
  const pl_view *w = &op->src[0];
  source s = {.w = w, .type = w->type};
  s.widen = op->src[1].type == PL_F32 && pl_type_act(w->type) != PL_ACT_F32;
  if (s.widen) s.type = PL_F32;
  s.repack = (s.widen || w->layout == PL_PLAIN) && k->pack[s.type];
  s.row_bytes = pl_row_bytes(s.type, w->cols);
  return s;
}

int64_t pl_mm_scratch(const pl_op *op) {
  const pl_kern_table *k = pl_kern();
  source s = source_of(k, op);
  int64_t n = 0;
  if (s.widen) n += align64(s.row_bytes * PL_PANEL);
  if (s.repack) n += align64(k->panel_bytes[s.type](s.w->cols));
  return n;
}

static const void *panel(const pl_run_ctx *c, const source *s, int64_t p, int32_t nr) {
  const pl_view *w = s->w;
  const uint8_t *base = pl_at(c, w, 0);
  if (w->layout == PL_PACKED) return base + p * c->kern->panel_bytes[w->type](w->cols);
  const uint8_t *rows = base + p * PL_PANEL * w->stride;
  uint8_t *scratch = c->scratch;
  if (s->widen) {
    for (int32_t r = 0; r < nr; r++)
      c->kern->deq[w->type](rows + r * w->stride, (float *)(scratch + r * s->row_bytes), w->cols);
    rows = scratch;
    scratch += align64(s->row_bytes * PL_PANEL);
  }
  if (!s->repack) return rows;
  c->kern->pack[s->type](rows, s->row_bytes, nr, w->cols, scratch);
  return scratch;
}

void pl_do_mm(const pl_run_ctx *c, const pl_op *op) {
  const pl_view *w = &op->src[0], *a = &op->src[1], *bias = &op->src[2], *res = &op->src[3];
  source s = source_of(c->kern, op);
  int32_t terms = op->i[0], n_terms = op->i[1]; /* to use, of those there are */
  int64_t a_row = a->stride / n_terms, T = pl_rows(c->step, &op->dst[0]);
  int64_t n_panels = (w->rows + PL_PANEL - 1) / PL_PANEL, first, last;
  int64_t chunk = n_panels / (c->n_threads * 8) + 1;
  int64_t step =
      terms == n_terms ? Y_ROWS / terms : 1; /* tokens per call: act rows in use must be evenly spaced */
  if (terms == 1) step = Y_ROWS;
  int64_t a_stride = terms == n_terms ? a_row : a->stride;
  const float *b = bias->buf >= 0 ? pl_at(c, bias, 0) : NULL;
  _Alignas(64) float y[Y_ROWS * PL_PANEL];
  while (pl_claim(c, op, n_panels, chunk, &first, &last))
    for (int64_t p = first; p < last; p++) {
      int32_t nr = w->rows - p * PL_PANEL < PL_PANEL ? (int32_t)(w->rows - p * PL_PANEL) : PL_PANEL;
      const void *wp = panel(c, &s, p, nr);
      for (int64_t t0 = 0; t0 < T; t0 += step) {
        int32_t nt = (int32_t)(T - t0 < step ? T - t0 : step);
        c->kern->mm[s.type](wp, s.row_bytes, nr, w->cols, pl_at(c, a, t0), a_stride, nt * terms, y);
        for (int32_t t = 0; t < nt; t++) {
          float *out = (float *)pl_at(c, &op->dst[0], t0 + t) + p * PL_PANEL;
          const float *yt = y + t * terms * PL_PANEL;
          float v[PL_PANEL];
          for (int32_t r = 0; r < nr; r++) v[r] = terms > 1 ? yt[r] + yt[PL_PANEL + r] : yt[r];
          if (b)
            for (int32_t r = 0; r < nr; r++) v[r] += b[p * PL_PANEL + r];
          if (res->buf >= 0) {
            const float *x = (const float *)pl_at(c, res, t0 + t) + p * PL_PANEL;
            for (int32_t r = 0; r < nr; r++) v[r] += x[r];
          }
          for (int32_t r = 0; r < nr; r++) out[r] = v[r];
        }
      }
    }
}
