/* mm.c: matmul. Work items are panels of 16 weight rows. A thread claims some, and runs stripes of tokens that fit in
 * its cache through them, two panels at a time where the level has kernels for that (mm2). Every output is one chain
 * over k inside one kernel call, so neither the number of threads nor of tokens changes a bit. */
#include "prog/mm.h"

#include <string.h>

#include "kern/tile.h"
#include "prog/program.h"
#include "quant/types.h"

enum { STRIPE_BYTES = 1 << 19 }; /* activations that stay in the second level cache while panels go by */

pl_source pl_source_of(const pl_kern_table *k, const pl_op *op, const pl_view *w) {
  pl_source s = {.w = w, .type = w->type};
  s.widen = op->src[1].type == PL_F32 && pl_type_act(w->type) != PL_ACT_F32;
  if (s.widen) s.type = PL_F32;
  s.repack = (s.widen || w->layout == PL_PLAIN) && k->pack[s.type];
  s.row_bytes = pl_row_bytes(s.type, w->cols);
  return s;
}

int64_t pl_source_scratch(const pl_op *op, const pl_view *w) {
  const pl_kern_table *k = pl_kern();
  pl_source s = pl_source_of(k, op, w);
  int64_t n = 0;
  if (s.widen) n += pl_align64(s.row_bytes * PL_PANEL);
  if (s.repack) n += 2 * pl_align64(k->panel_bytes[s.type](s.w->cols));
  return n;
}

int64_t pl_mm_scratch(const pl_op *op) {
  int64_t n = pl_source_scratch(op, &op->src[0]), kv = op->kind == PL_OP_mm_heads ? pl_kv_scratch(op) : 0;
  if (op->kind == PL_OP_mm_glu) n += pl_source_scratch(op, &op->src[2]);
  return n > kv ? n : kv;
}

/* Panel p of nr rows as the kernel reads it; scratch: where it is made if need be. */
static const uint8_t *panel(const pl_run_ctx *c, const pl_source *s, int64_t p, int32_t nr, uint8_t *scratch) {
  const pl_view *w = s->w;
  const uint8_t *base = pl_at(c, w, 0);
  if (w->layout == PL_PACKED) return base + p * c->kern->panel_bytes[w->type](w->cols);
  const uint8_t *rows = base + p * PL_PANEL * w->stride;
  if (s->widen) {
    for (int32_t r = 0; r < nr; r++)
      c->kern->deq[w->type](rows + r * w->stride, (float *)(scratch + r * s->row_bytes), w->cols);
    rows = scratch;
    scratch += pl_align64(s->row_bytes * PL_PANEL);
  }
  if (!s->repack) return rows;
  c->kern->pack[s->type](rows, s->row_bytes, nr, w->cols, scratch);
  return scratch;
}

pl_panels pl_get_panels(const pl_run_ctx *c, const pl_source *s, int64_t p, int64_t n, int32_t nr, int32_t nr2,
                        uint8_t *scratch) {
  pl_panels v = {.w = panel(c, s, p, nr, scratch), .nr = nr, .cols = (int32_t)n * PL_PANEL};
  if (n == 1) return v;
  if (s->repack) scratch += pl_align64(c->kern->panel_bytes[s->type](s->w->cols));
  v.next = panel(c, s, p + 1, nr2, scratch) - v.w;
  return v;
}

void pl_run_panels(const pl_run_ctx *c, const pl_source *s, const pl_panels *v, int64_t w, int64_t k,
                   const void *a, int64_t a_stride, int32_t nt, const int32_t *at, float *y) {
  if (v->next)
    c->kern->mm2[s->type](v->w + w, v->next, k, a, a_stride, nt, at, y);
  else
    c->kern->mm[s->type](v->w + w, s->row_bytes, v->nr, k, a, a_stride, nt, at, y);
}

int64_t pl_unit_bytes(const pl_run_ctx *c, const pl_source *s, int32_t unit) {
  return s->repack || s->w->layout == PL_PACKED ? c->kern->panel_bytes[s->type](64 * 32 * unit) / 64
                                                : pl_row_bytes(s->type, 32 * unit);
}

/* ---- second terms of some blocks only ----
 *
 * What the first term of a block leaves over grows with the block's scale, so the few blocks with large scales hold most
 * of the error. The activations then have second terms for some units of blocks only (pl_put_act), different ones for
 * each token. Transposed into lists of tokens per unit they are multiplied with that part of a panel by the same
 * kernels, with a small k, units ascending, and each token's chain goes on where its last unit left it. A few tokens, and
 * those with second terms for most units, are multiplied with all units instead: absent ones are zeros, which change
 * nothing. */

typedef struct refine {
  uint64_t serial;     /* the run and the activations (op->i[2]) that the lists are of, */
  int32_t act, stripe; /* tokens of a stripe; each stripe has its lists */
  int32_t unit, n_units, n_full;
  int32_t *full;  /* [n_full] tokens multiplied with all units; the others: */
  int32_t *start; /* entries of unit u of stripe s are start[s * n_units + u] .. start[s * n_units + u + 1] - 1 */
  int32_t *token; /* [entries] counted from the start of the stripe */
  float *sum;   /* [2][tokens of a stripe][1 or 2][16] second terms of one or two panels, of up to two matrices */
  pl_q8 *block; /* [entries][unit] */
  uint8_t *has; /* [T][n_units] 1 where there is a second term */
} refine;

static int is_sparse(const pl_op *op) { return op->i[1]; }

static refine *lay_out(uint8_t *mem, const pl_op *op, int64_t max_rows, int64_t *bytes) {
  refine *r = (refine *)(void *)mem;
  int64_t units = op->src[0].cols / 32 / op->i[3], full = pl_align64(sizeof *r),
          start = full + pl_align64(max_rows * 4);
  int64_t token = start + pl_align64(((max_rows / PL_Y_ROWS + 1) * units + 2) * 4);
  int64_t sum = token + pl_align64(units * max_rows * 4),
          block = sum + 2 * pl_align64(max_rows * 2 * PL_PANEL * 4);
  int64_t has = block + pl_align64(units * max_rows * op->i[3] * (int64_t)sizeof(pl_q8));
  *bytes = has + pl_align64(units * max_rows);
  if (!mem) return NULL;
  r->unit = op->i[3];
  r->n_units = (int32_t)units;
  r->full = (int32_t *)(void *)(mem + full);
  r->start = (int32_t *)(void *)(mem + start);
  r->token = (int32_t *)(void *)(mem + token);
  r->sum = (float *)(void *)(mem + sum);
  r->block = (pl_q8 *)(void *)(mem + block);
  r->has = mem + has;
  return r;
}

int64_t pl_refine_bytes(const pl_op *op, int64_t max_rows) {
  int64_t bytes = 0;
  if (is_sparse(op)) lay_out(NULL, op, max_rows, &bytes);
  return bytes;
}

/* The lists of op's activations; made once for the matmuls that read them. Rows are read one after the other: first
 * entries are counted (start[i + 2]), then start[i + 1] goes from the first entry of list i to its end. */
static const refine *listed(const pl_run_ctx *c, const pl_op *op, int64_t T, int64_t stripe) {
  const pl_view *a = &op->src[1];
  refine *r = (refine *)(void *)c->refine;
  if (r->serial == c->prog->serial && r->act == op->i[2] && r->stripe == stripe) return r;
  int64_t bytes, nb = op->src[0].cols / 32;
  r = lay_out(c->refine, op, c->prog->max_tokens, &bytes);
  r->serial = c->prog->serial;
  r->act = op->i[2];
  r->stripe = (int32_t)stripe;
  r->n_full = 0;
  int64_t n_lists = (T + stripe - 1) / stripe * r->n_units;
  memset(r->start, 0, sizeof *r->start * (size_t)(n_lists + 2));
  for (int64_t t = 0; t < T; t++) {
    const pl_q8 *lo = (const pl_q8 *)pl_local_at(c, op, a, t) + nb;
    uint8_t *has = r->has + t * r->n_units;
    int32_t n = 0, *start = r->start + t / stripe * r->n_units;
    for (int32_t u = 0; u < r->n_units; u++) n += has[u] = pl_has_unit(lo + u * r->unit, r->unit);
    if (2 * n > r->n_units) {
      r->full[r->n_full++] = (int32_t)t;
      memset(has, 0, (size_t)r->n_units);
    } else if (n) {
      for (int32_t u = 0; u < r->n_units; u++) start[u + 2] += has[u];
    }
  }
  for (int64_t i = 0; i < n_lists; i++) r->start[i + 2] += r->start[i + 1];
  for (int64_t t = 0; t < T; t++) {
    const pl_q8 *lo = (const pl_q8 *)pl_local_at(c, op, a, t) + nb;
    const uint8_t *has = r->has + t * r->n_units;
    int32_t *start = r->start + t / stripe * r->n_units;
    for (int32_t u = 0; u < r->n_units; u++)
      if (has[u]) {
        int32_t n = start[u + 1]++;
        r->token[n] = (int32_t)(t % stripe);
        memcpy(r->block + (int64_t)n * r->unit, lo + u * r->unit, sizeof(pl_q8) * (size_t)r->unit);
      }
  }
  return r;
}

#define TEN(i) (i), (i) + 1, (i) + 2, (i) + 3, (i) + 4, (i) + 5, (i) + 6, (i) + 7, (i) + 8, (i) + 9
const int32_t pl_in_order[PL_Y_ROWS] = {TEN(0),  TEN(10), TEN(20), TEN(30), TEN(40), TEN(50), TEN(60), TEN(70),
                                        TEN(80), 90,      91,      92,      93,      94,      95};

/* A matmul under way on one thread. */
typedef struct job {
  const pl_run_ctx *c;
  const pl_op *op;
  const refine *some;      /* the lists of second terms, or NULL */
  const pl_view *residual; /* or NULL */
  int64_t T, stripe;       /* tokens in all and at a time */
  int32_t terms;           /* rows of each token that the kernel sees, evenly spaced */
  uint8_t *up;             /* scratch memory for the panels of a second matrix */
} job;

static job start(const pl_run_ctx *c, const pl_op *op, const pl_source *s) {
  job j = {.c = c, .op = op, .T = pl_rows(c->step, &op->dst[0])};
  j.stripe = STRIPE_BYTES / (op->src[1].stride / op->i[0]) / PL_Y_ROWS * PL_Y_ROWS;
  if (j.stripe < PL_Y_ROWS) j.stripe = PL_Y_ROWS;
  if (j.stripe > j.T || s->repack) j.stripe = j.T; /* packing again for each stripe would cost more */
  j.some = is_sparse(op) && j.T > PL_LISTED_ABOVE ? listed(c, op, j.T, j.stripe) : NULL;
  j.terms = j.some ? 1 : op->i[0];
  j.up = c->scratch + (op->kind == PL_OP_mm_glu ? pl_source_scratch(op, s->w) : 0);
  j.residual = op->kind == PL_OP_mm && op->src[3].buf >= 0 ? &op->src[3] : NULL;
  return j;
}

/* Rows of panel p that exist. */
static int32_t panel_rows(const pl_view *w, int64_t p) {
  return w->rows - p * PL_PANEL < PL_PANEL ? (int32_t)(w->rows - p * PL_PANEL) : PL_PANEL;
}

/* The panels at hand, and [tokens of the stripe][cols] their second terms, or NULL. */
typedef struct panels {
  pl_panels p;
  float *sum;
} panels;

/* scratch: where they are made if need be. */
static panels get_panels(const job *j, const pl_source *s, int64_t p, int64_t n, uint8_t *scratch) {
  int32_t nr = panel_rows(s->w, p), nr2 = panel_rows(s->w, p + 1);
  return (panels){pl_get_panels(j->c, s, p, n, nr, nr2, scratch), j->some ? j->some->sum : NULL};
}

/* v->sum [n][cols] = second terms of tokens t0 .. t0+n-1, a stripe, times the panels. */
static void add_second_terms(const job *j, const pl_source *s, const panels *v, int64_t t0, int64_t n) {
  const refine *r = j->some;
  const pl_view *a = &j->op->src[1];
  int32_t k = r->unit * 32;
  int64_t unit_bytes = pl_unit_bytes(j->c, s, r->unit);
  memset(v->sum, 0, sizeof(float) * (size_t)(n * v->p.cols));
  for (int32_t i = 0, m; i < r->n_full; i += m) { /* tokens one after the other, in one call */
    int64_t t = r->full[i];
    for (m = 1; m < PL_Y_ROWS && i + m < r->n_full && r->full[i + m] == t + m && t + m != t0 && t + m != t0 + n;)
      m++;
    if (t < t0 || t >= t0 + n) continue;
    const pl_q8 *lo = (const pl_q8 *)pl_local_at(j->c, j->op, a, t) + s->w->cols / 32;
    pl_run_panels(j->c, s, &v->p, 0, s->w->cols, lo, a->stride, m, pl_in_order, v->sum + (t - t0) * v->p.cols);
  }
  const int32_t *first = r->start + t0 / r->stripe * r->n_units;
  for (int64_t u = 0; u < r->n_units; u++) {
    int32_t i = first[u], m = first[u + 1] - i;
    if (m)
      pl_run_panels(j->c, s, &v->p, u * unit_bytes, k, r->block + (int64_t)i * r->unit,
                    r->unit * (int64_t)sizeof(pl_q8), m, r->token + i, v->sum);
  }
}

/* y [nt][terms][cols] = tokens [t0, t0 + nt) times the panels. */
static void multiply(const job *j, const pl_source *s, const panels *v, int64_t t0, int32_t nt, float *y) {
  const pl_view *a = &j->op->src[1];
  memset(y, 0, sizeof(float) * (size_t)(nt * j->terms * v->p.cols));
  pl_run_panels(j->c, s, &v->p, 0, s->w->cols, pl_local_at(j->c, j->op, a, t0), a->stride / j->terms,
                nt * j->terms, pl_in_order, y);
}

/* v [n] += x [n], unless x is NULL */
PL_INLINE void plus(float *restrict v, const float *restrict x, int n) {
  if (x)
    for (int i = 0; i < n; i++) v[i] += x[i];
}

/* v [n] += lo [n], bias [n], res [n] (those that are not NULL), and on to out. */
PL_INLINE void put_some(float *out, float *v, const float *lo, const float *bias, const float *res, int n) {
  plus(v, lo, n);
  plus(v, bias, n);
  plus(v, res, n);
  memcpy(out, v, sizeof(float) * (size_t)n);
}

/* The same; compiled apart for whole panels. */
static void put_columns(float *out, float *v, const float *lo, const float *bias, const float *res, int n) {
  if (n == PL_PANEL)
    put_some(out, v, lo, bias, res, PL_PANEL);
  else
    put_some(out, v, lo, bias, res, n);
}

/* Token t's second terms, in the stripe from s0, where y is what multiply() made of tokens from t0 on. */
static const float *second_terms(const job *j, const panels *v, const float *y, int64_t s0, int64_t t0,
                                 int32_t t) {
  if (v->sum) return v->sum + (t0 - s0 + t) * v->p.cols;
  return j->terms > 1 ? y + (t * j->terms + 1) * v->p.cols : NULL;
}

/* Asks for the columns of n panels from p on of a row that is soon written: rows are far apart. */
PL_INLINE void ask_for(const void *row, int64_t p, int64_t n) {
  for (int64_t i = p; i < p + n; i++) __builtin_prefetch((const float *)row + i * PL_PANEL, 1);
}

/* Columns of n panels from p on, for the stripe of tokens [s0, s1). */
static void mm_panels(const job *j, const pl_source *s, int64_t p, int64_t n, int64_t s0, int64_t s1) {
  const pl_run_ctx *c = j->c;
  const pl_view *bias = &j->op->src[2], *res = j->residual;
  const float *b = bias->buf >= 0 ? (const float *)pl_at(c, bias, 0) + p * PL_PANEL : NULL;
  int32_t step = PL_Y_ROWS / j->terms;
  panels v = get_panels(j, s, p, n, c->scratch);
  _Alignas(64) float y[PL_Y_ROWS * 2 * PL_PANEL];
  if (v.sum) add_second_terms(j, s, &v, s0, s1 - s0);
  for (int64_t t0 = s0; t0 < s1; t0 += step) {
    int32_t nt = (int32_t)(s1 - t0 < step ? s1 - t0 : step);
    for (int32_t t = 0; t < nt; t++) {
      ask_for(pl_at(c, &j->op->dst[0], t0 + t), p, n);
      if (res) ask_for(pl_at(c, res, t0 + t), p, n);
    }
    multiply(j, s, &v, t0, nt, y);
    for (int32_t t = 0; t < nt; t++) {
      float *hi = y + t * j->terms * v.p.cols;
      const float *lo = second_terms(j, &v, y, s0, t0, t);
      const float *x = res ? (const float *)pl_at(c, res, t0 + t) + p * PL_PANEL : NULL;
      float *out = (float *)pl_at(c, &j->op->dst[0], t0 + t) + p * PL_PANEL;
      for (int64_t i = 0; i < n; i++) {
        int64_t col = i * PL_PANEL;
        const float *l = lo ? lo + col : NULL, *bi = b ? b + col : NULL, *xi = x ? x + col : NULL;
        put_columns(out + col, hi + col, l, bi, xi, panel_rows(s->w, p + i));
      }
    }
  }
}

/* Columns of the result for n panels from p on: of the gate, and its activation times up. */
static void glu_panels(const job *j, const pl_source *gate, const pl_source *up, int64_t p, int64_t n, int64_t s0,
                       int64_t s1) {
  int32_t step = PL_Y_ROWS / j->terms;
  _Alignas(64) float y[PL_Y_ROWS * 2 * PL_PANEL], both[2][PL_Y_ROWS * 2 * PL_PANEL];
  const pl_source *s[2] = {gate, up};
  panels v[2];
  for (int m = 0; m < 2; m++) {
    v[m] = get_panels(j, s[m], p, n, m ? j->up : j->c->scratch);
    if (!v[m].sum) continue;
    v[m].sum += m * j->stripe * 2 * PL_PANEL;
    add_second_terms(j, s[m], &v[m], s0, s1 - s0);
  }
  int32_t cols = v[0].p.cols;
  for (int64_t t0 = s0; t0 < s1; t0 += step) {
    int32_t nt = (int32_t)(s1 - t0 < step ? s1 - t0 : step);
    for (int32_t t = 0; t < nt; t++) ask_for(pl_at(j->c, &j->op->dst[0], t0 + t), p, n);
    for (int m = 0; m < 2; m++) {
      multiply(j, s[m], &v[m], t0, nt, y);
      for (int32_t t = 0; t < nt; t++) {
        float *hi = y + t * j->terms * cols;
        const float *lo = second_terms(j, &v[m], y, s0, t0, t);
        for (int32_t i = 0; i < cols; i += PL_PANEL)
          put_columns(both[m] + t * cols + i, hi + i, lo ? lo + i : NULL, NULL, NULL, PL_PANEL);
      }
    }
    pl_glu(j->c, j->op->i[4], both[0], both[1], nt * cols, y);
    for (int32_t t = 0; t < nt; t++) {
      float *out = (float *)pl_at(j->c, &j->op->dst[0], t0 + t) + p * PL_PANEL;
      memcpy(out, y + t * cols,
             sizeof(float) * (size_t)(gate->w->rows - p * PL_PANEL < cols ? gate->w->rows - p * PL_PANEL : cols));
    }
  }
}

/* Head h of the result, whose panels are all there, on to its place. */
static void finish_head(const pl_run_ctx *c, const pl_op *op, int32_t h) {
  const pl_view *y = &op->dst[0], *norm = &op->src[4];
  int32_t hd = op->i[4], n_rot = op->i[5];
  const float *w = norm->buf >= 0 ? pl_at(c, norm, 0) : NULL;
  for (int64_t t = 0; t < c->step->n_tokens; t++) {
    float *x = (float *)pl_at(c, y, t) + h * hd;
    if (w) c->kern->rmsnorm(x, w, hd, op->f[0], x);
    if (n_rot) c->kern->rope(x, 1, hd, n_rot, op->i[6], pl_at(c, &op->src[3], t));
  }
  if (op->i[7]) pl_kv_store_head(c, &op->dst[1], op->i[7] == 1, y, hd, h);
}

/* Panels [first, last) of all heads are made: goes on with the heads that are whole by this. */
static void finish_panels(const pl_run_ctx *c, const pl_op *op, int64_t first, int64_t last) {
  int32_t per_head = op->i[4] / PL_PANEL;
  atomic_int *done = c->prog->panels_done + c->prog->first_head[op - c->prog->ops];
  for (int64_t p = first, n; p < last; p += n) {
    int64_t h = p / per_head, end = (h + 1) * per_head;
    n = (end < last ? end : last) - p;
    if (atomic_fetch_add_explicit(&done[h], (int)n, memory_order_acq_rel) + n < per_head) continue;
    atomic_store_explicit(&done[h], 0, memory_order_relaxed); /* for the next step */
    finish_head(c, op, (int32_t)h);
  }
}

/* All panels of s, and of up unless that is NULL, shared out among the threads. */
static void do_panels(const pl_run_ctx *c, const pl_op *op, const pl_source *s, const pl_source *up,
                      int64_t share) {
  job j = start(c, op, s);
  int64_t n_panels = (s->w->rows + PL_PANEL - 1) / PL_PANEL, chunk = n_panels / (c->n_threads * share) + 1, first,
          last;
  int pairs = c->kern->mm2[s->type] && (!up || c->kern->mm2[up->type]) && j.T * j.terms >= PL_PAIRS_FROM;
  if (pairs) chunk += chunk % 2;
  while (pl_claim(c, op, n_panels, chunk, &first, &last)) {
    for (int64_t s0 = 0; s0 < j.T; s0 += j.stripe) {
      int64_t s1 = s0 + j.stripe < j.T ? s0 + j.stripe : j.T;
      for (int64_t p = first, n; p < last; p += n) {
        n = pairs && p + 1 < last ? 2 : 1;
        if (up)
          glu_panels(&j, s, up, p, n, s0, s1);
        else
          mm_panels(&j, s, p, n, s0, s1);
      }
    }
    if (op->kind == PL_OP_mm_heads) finish_panels(c, op, first, last);
  }
}

void pl_do_mm(const pl_run_ctx *c, const pl_op *op) {
  pl_source s = pl_source_of(c->kern, op, &op->src[0]);
  do_panels(c, op, &s, NULL, 8);
}

void pl_do_mm_glu(const pl_run_ctx *c, const pl_op *op) {
  pl_source gate = pl_source_of(c->kern, op, &op->src[0]), up = pl_source_of(c->kern, op, &op->src[2]);
  do_panels(c, op, &gate, &up, 16);
}

void pl_do_mm_heads(const pl_run_ctx *c, const pl_op *op) {
  pl_source s = pl_source_of(c->kern, op, &op->src[0]);
  do_panels(c, op, &s, NULL, 8);
}
