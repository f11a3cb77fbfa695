/* mm.c: matmul. Work items are panels of 16 weight rows; a thread claims some, and runs all tokens through each
 * panel while it is in the cache. Every output is one chain over k inside one kernel call, so neither the number
 * of threads nor of tokens changes a bit. */
#include <string.h>

#include "prog/program.h"
#include "quant/types.h"

enum {
  Y_ROWS = 64,     /* activation rows per kernel call */
  LISTED_ABOVE = 4 /* tokens for which a list of second terms does not pay */
};

static int64_t align64(int64_t n) { return (n + 63) / 64 * 64; }

/* Where the mm kernel will find a panel. */
typedef struct source {
  const pl_view *w;
  int32_t type;      /* type the kernel runs on: the weight's, or F32 when the weight is widened */
  int32_t widen;     /* dequantize to plain float rows first */
  int32_t repack;    /* pack plain rows before the kernel */
  int64_t row_bytes; /* of the plain rows that the kernel or the packer reads */
} source;

static source source_of(const pl_kern_table *k, const pl_op *op, const pl_view *w) {
  source s = {.w = w, .type = w->type};
  s.widen = op->src[1].type == PL_F32 && pl_type_act(w->type) != PL_ACT_F32;
  if (s.widen) s.type = PL_F32;
  s.repack = (s.widen || w->layout == PL_PLAIN) && k->pack[s.type];
  s.row_bytes = pl_row_bytes(s.type, w->cols);
  return s;
}

static int64_t source_scratch(const pl_op *op, const pl_view *w) {
  const pl_kern_table *k = pl_kern();
  source s = source_of(k, op, w);
  int64_t n = 0;
  if (s.widen) n += align64(s.row_bytes * PL_PANEL);
  if (s.repack) n += align64(k->panel_bytes[s.type](s.w->cols));
  return n;
}

int64_t pl_mm_scratch(const pl_op *op) {
  int64_t n = source_scratch(op, &op->src[0]), m = op->kind == PL_OP_mm_glu ? source_scratch(op, &op->src[2]) : 0;
  return n > m ? n : m;
}

/* Panel p as the kernel reads it; scratch: where it is made if need be. */
static const void *panel(const pl_run_ctx *c, const source *s, int64_t p, int32_t nr, uint8_t *scratch) {
  const pl_view *w = s->w;
  const uint8_t *base = pl_at(c, w, 0);
  if (w->layout == PL_PACKED) return base + p * c->kern->panel_bytes[w->type](w->cols);
  const uint8_t *rows = base + p * PL_PANEL * w->stride;
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

/* ---- second terms of some blocks only ----
 *
 * What the first term of a block leaves over grows with the block's scale, so the few blocks with large scales hold most
 * of the error. The activations then have second terms for some units of blocks only (pl_put_act), different ones for
 * each token. Transposed into lists of tokens per unit they are multiplied with that part of a panel by the same
 * kernels, with a small k, units ascending, and each token's chain goes on where its last unit left it. A few tokens are
 * multiplied with all units instead: absent ones are zeros, which change nothing. */

typedef struct refine {
  uint64_t serial; /* the run and the activations (op->i[2]) that the list is of */
  int32_t act, unit;
  int64_t n_units;
  int32_t *start; /* [n_units + 1] entries of unit u are start[u] .. start[u+1]-1 */
  int32_t *token; /* [entries] */
  float *sum;     /* [T][16] second terms of a panel */
  pl_q8 *block;   /* [entries][unit] */
} refine;

static int is_sparse(const pl_op *op) { return op->i[1]; }

static refine *lay_out(uint8_t *mem, const pl_op *op, int64_t max_rows, int64_t *bytes) {
  refine *r = (refine *)(void *)mem;
  int64_t units = op->src[0].cols / 32 / op->i[3], at = align64(sizeof *r);
  int64_t start = at, token = start + align64((units + 1) * 4), sum = token + align64(units * max_rows * 4);
  int64_t block = sum + align64(max_rows * PL_PANEL * 4);
  *bytes = block + align64(units * max_rows * op->i[3] * (int64_t)sizeof(pl_q8));
  if (!mem) return NULL;
  r->unit = op->i[3];
  r->n_units = units;
  r->start = (int32_t *)(void *)(mem + start);
  r->token = (int32_t *)(void *)(mem + token);
  r->sum = (float *)(void *)(mem + sum);
  r->block = (pl_q8 *)(void *)(mem + block);
  return r;
}

int64_t pl_refine_bytes(const pl_op *op, int64_t max_rows) {
  int64_t bytes = 0;
  if (is_sparse(op)) lay_out(NULL, op, max_rows, &bytes);
  return bytes;
}

static int has_unit(const pl_q8 *lo, int32_t unit) {
  for (int32_t b = 0; b < unit; b++)
    if (lo[b].d != 0) return 1;
  return 0;
}

/* The list of op's activations; made once for the matmuls that read them. */
static const refine *listed(const pl_run_ctx *c, const pl_op *op, int64_t T) {
  const pl_view *a = &op->src[1];
  refine *r = (refine *)(void *)c->refine;
  if (r->serial == c->prog->serial && r->act == op->i[2]) return r;
  int64_t bytes, nb = op->src[0].cols / 32;
  r = lay_out(c->refine, op, c->prog->max_tokens, &bytes);
  r->serial = c->prog->serial;
  r->act = op->i[2];
  int32_t n = 0;
  for (int64_t u = 0; u < r->n_units; u++) {
    r->start[u] = n;
    for (int64_t t = 0; t < T; t++) {
      const pl_q8 *lo = (const pl_q8 *)pl_local_at(c, op, a, t) + nb + u * r->unit;
      if (!has_unit(lo, r->unit)) continue;
      r->token[n] = (int32_t)t;
      for (int32_t b = 0; b < r->unit; b++) r->block[n * r->unit + b] = lo[b];
      n++;
    }
  }
  r->start[r->n_units] = n;
  return r;
}

/* r->sum [T][16] = second terms of T tokens times the panel wp. */
static void add_second_terms(const pl_run_ctx *c, const source *s, const refine *r, const uint8_t *wp, int32_t nr,
                             int64_t T) {
  int32_t type = s->type, k = r->unit * 32;
  int64_t unit_bytes =
      s->repack || s->w->layout == PL_PACKED ? c->kern->panel_bytes[type](64 * k) / 64 : pl_row_bytes(type, k);
  memset(r->sum, 0, sizeof(float) * PL_PANEL * (size_t)T);
  for (int64_t u = 0; u < r->n_units; u++) {
    int32_t i = r->start[u], n = r->start[u + 1] - i;
    if (n)
      c->kern->mm[type](wp + u * unit_bytes, s->row_bytes, nr, k, r->block + (int64_t)i * r->unit,
                        r->unit * (int64_t)sizeof(pl_q8), n, r->token + i, r->sum);
  }
}

/* y rows for kernels that fill them one after the other. */
static const int32_t in_order[Y_ROWS] = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
};

/* A matmul under way on one thread. */
typedef struct job {
  const pl_run_ctx *c;
  const pl_op *op;
  const refine *some; /* the list of second terms, or NULL */
  int64_t T;
  int32_t terms; /* rows of each token that the kernel sees, evenly spaced */
} job;

static job start(const pl_run_ctx *c, const pl_op *op) {
  job j = {.c = c, .op = op, .T = pl_rows(c->step, &op->dst[0])};
  j.some = is_sparse(op) && j.T > LISTED_ABOVE ? listed(c, op, j.T) : NULL;
  j.terms = j.some ? 1 : op->i[0];
  return j;
}

/* Rows of panel p that exist. */
static int32_t panel_rows(const pl_view *w, int64_t p) {
  return w->rows - p * PL_PANEL < PL_PANEL ? (int32_t)(w->rows - p * PL_PANEL) : PL_PANEL;
}

/* y [nt][16] = tokens [t0, t0 + nt) times the panel wp. The list's sums are of that panel. */
static void multiply(const job *j, const source *s, const uint8_t *wp, int32_t nr, int64_t t0, int32_t nt,
                     float *y) {
  const pl_view *a = &j->op->src[1];
  int32_t terms = j->terms;
  memset(y, 0, sizeof(float) * PL_PANEL * (size_t)(nt * terms));
  j->c->kern->mm[s->type](wp, s->row_bytes, nr, s->w->cols, pl_local_at(j->c, j->op, a, t0), a->stride / terms,
                          nt * terms, in_order, y);
  if (j->some) {
    const float *lo = j->some->sum + t0 * PL_PANEL;
    for (int32_t i = 0; i < nt * PL_PANEL; i++) y[i] += lo[i];
  } else if (terms > 1) {
    for (int32_t t = 0; t < nt; t++)
      for (int32_t r = 0; r < PL_PANEL; r++)
        y[t * PL_PANEL + r] = y[t * terms * PL_PANEL + r] + y[(t * terms + 1) * PL_PANEL + r];
  }
}

static void mm_panel(const job *j, const source *s, int64_t p) {
  const pl_run_ctx *c = j->c;
  const pl_view *bias = &j->op->src[2], *res = &j->op->src[3];
  const float *b = bias->buf >= 0 ? (const float *)pl_at(c, bias, 0) + p * PL_PANEL : NULL;
  int32_t nr = panel_rows(s->w, p), step = Y_ROWS / j->terms;
  const uint8_t *wp = panel(c, s, p, nr, c->scratch);
  _Alignas(64) float y[Y_ROWS * PL_PANEL];
  if (j->some) add_second_terms(c, s, j->some, wp, nr, j->T);
  for (int64_t t0 = 0; t0 < j->T; t0 += step) {
    int32_t nt = (int32_t)(j->T - t0 < step ? j->T - t0 : step);
    multiply(j, s, wp, nr, t0, nt, y);
    for (int32_t t = 0; t < nt; t++) {
      float *v = y + t * PL_PANEL;
      if (b)
        for (int32_t r = 0; r < nr; r++) v[r] += b[r];
      if (res->buf >= 0) {
        const float *x = (const float *)pl_at(c, res, t0 + t) + p * PL_PANEL;
        for (int32_t r = 0; r < nr; r++) v[r] += x[r];
      }
      memcpy((float *)pl_at(c, &j->op->dst[0], t0 + t) + p * PL_PANEL, v, sizeof(float) * (size_t)nr);
    }
  }
}

/* Panels that a thread claims at once. */
static int64_t claim_size(const pl_run_ctx *c, int64_t n_panels) { return n_panels / (c->n_threads * 8) + 1; }

void pl_do_mm(const pl_run_ctx *c, const pl_op *op) {
  job j = start(c, op);
  source s = source_of(c->kern, op, &op->src[0]);
  int64_t n = (s.w->rows + PL_PANEL - 1) / PL_PANEL, first, last;
  while (pl_claim(c, op, n, claim_size(c, n), &first, &last))
    for (int64_t p = first; p < last; p++) mm_panel(&j, &s, p);
}

/* Columns [16 p, 16 p + 16) of the result, first holding the gate, then its activation times up. */
static void glu_panel(const job *j, const source *gate, const source *up, int64_t p) {
  const pl_run_ctx *c = j->c;
  int32_t nr = panel_rows(gate->w, p), step = Y_ROWS / j->terms;
  size_t bytes = sizeof(float) * (size_t)nr;
  _Alignas(64) float y[Y_ROWS * PL_PANEL], g[Y_ROWS * PL_PANEL];
  for (int32_t half = 0; half < 2; half++) {
    const source *s = half ? up : gate;
    const uint8_t *wp = panel(c, s, p, nr, c->scratch);
    if (j->some) add_second_terms(c, s, j->some, wp, nr, j->T);
    for (int64_t t0 = 0; t0 < j->T; t0 += step) {
      int32_t nt = (int32_t)(j->T - t0 < step ? j->T - t0 : step);
      float *row[Y_ROWS];
      for (int32_t t = 0; t < nt; t++) row[t] = (float *)pl_at(c, &j->op->dst[0], t0 + t) + p * PL_PANEL;
      multiply(j, s, wp, nr, t0, nt, y);
      if (half) {
        for (int32_t t = 0; t < nt; t++) memcpy(g + t * PL_PANEL, row[t], bytes);
        pl_glu(c, j->op->i[4], g, y, nt * PL_PANEL, y);
      }
      for (int32_t t = 0; t < nt; t++) memcpy(row[t], y + t * PL_PANEL, bytes);
    }
  }
}

void pl_do_mm_glu(const pl_run_ctx *c, const pl_op *op) {
  job j = start(c, op);
  source gate = source_of(c->kern, op, &op->src[0]), up = source_of(c->kern, op, &op->src[2]);
  int64_t n = (gate.w->rows + PL_PANEL - 1) / PL_PANEL, first, last;
  while (pl_claim(c, op, n, claim_size(c, (n + 1) / 2), &first, &last))
    for (int64_t p = first; p < last; p++) glu_panel(&j, &gate, &up, p);
}
