/* moe.c: mixtures of experts (Shazeer et al. 2017). A router names for each token the experts that it uses and their
 * weights; the step's (token, slot) pairs are grouped by expert, and each group is a matmul with that expert's matrix.
 * As in mm.c every output is one chain over k inside one kernel call, so that what other tokens are in the step, and
 * how it is shared among threads, changes no bit. */
#include <math.h>
#include <string.h>

#include "prog/mm.h"
#include "prog/program.h"

/* ---- router ----------------------------------------------------------------------------------------------- */

enum { SOFTMAX = 0, SIGMOID = 1, SOFTMAX_OF_CHOSEN = 2 };

/* p [n] = e^(x - max x), divided by their sum. */
static void softmax(const float *x, int32_t n, float *p) {
  float most = -INFINITY, sum = 0;
  for (int32_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
  for (int32_t i = 0; i < n; i++) sum += p[i] = pl_exp(x[i] - most);
  for (int32_t i = 0; i < n; i++) p[i] /= sum;
}

/* The best not yet taken: the lowest of equals; NaN is worse than all numbers. */
static int32_t best_of(const float *score, int32_t n, const uint8_t *taken) {
  int32_t best = -1;
  for (int32_t i = 0; i < n; i++)
    if (!taken[i] && (best < 0 || score[i] > score[best] || (score[best] != score[best] && score[i] == score[i])))
      best = i;
  return best;
}

int64_t pl_route_scratch(const pl_op *op) {
  return pl_align64(op->src[0].cols * (int64_t)(2 * sizeof(float) + 1)) +
         pl_align64(op->i[3] * (int64_t)sizeof(float)) + pl_align64(op->i[3]);
}

/* Whether the groups of op (i3, i4, i5) divide its experts and leave enough of them. */
int pl_route_ok(const pl_op *op) {
  int64_t n = op->src[0].cols, groups = op->i[3], used = op->i[4], counted = op->i[5];
  return groups == 0 || (groups > 0 && n % groups == 0 && used >= 1 && used <= groups && counted >= 1 &&
                         counted <= n / groups && op->i[0] <= used * (n / groups));
}

/* Takes the experts of the worst groups out. sum [groups], chosen [groups]: working memory. */
static void limit_groups(const pl_op *op, const float *score, uint8_t *taken, float *sum, uint8_t *chosen) {
  int32_t groups = op->i[3], size = (int32_t)op->src[0].cols / groups;
  for (int32_t g = 0; g < groups; g++) {
    const float *s = score + g * size;
    sum[g] = 0;
    for (int32_t j = 0; j < op->i[5]; j++) {
      int32_t best = best_of(s, size, taken + g * size);
      sum[g] += s[best];
      taken[g * size + best] = 1;
    }
  }
  for (int32_t g = 0; g < groups; g++) chosen[g] = 0;
  for (int32_t j = 0; j < op->i[4]; j++) chosen[best_of(sum, groups, chosen)] = 1;
  for (int32_t i = 0; i < groups * size; i++) taken[i] = !chosen[i / size];
}

void pl_do_route(const pl_run_ctx *c, const pl_op *op) {
  int32_t n = (int32_t)op->src[0].cols, used = op->i[0], gating = op->i[1];
  const float *bias = op->src[1].buf >= 0 ? pl_at(c, &op->src[1], 0) : NULL;
  const float *scale = op->src[2].buf >= 0 ? pl_at(c, &op->src[2], 0) : NULL;
  float *p = (float *)(void *)c->scratch, *score = p + n;
  uint8_t *taken = (uint8_t *)(score + n), *more = c->scratch + pl_align64(n * (int64_t)(2 * sizeof(float) + 1));
  int64_t first, last;
  pl_my_rows(c, pl_rows(c->step, &op->dst[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *x = pl_at(c, &op->src[0], t);
    float *id = pl_at(c, &op->dst[0], t), *weight = id + used, sum = 0;
    if (gating == SOFTMAX)
      softmax(x, n, p);
    else
      for (int32_t i = 0; i < n; i++) p[i] = gating == SIGMOID ? 1.0f / (1.0f + pl_exp(-x[i])) : x[i];
    for (int32_t i = 0; i < n; i++) score[i] = bias ? p[i] + bias[i] : p[i];
    memset(taken, 0, (size_t)n);
    if (op->i[3])
      limit_groups(op, score, taken, (float *)(void *)more, more + pl_align64(op->i[3] * (int64_t)sizeof(float)));
    for (int32_t j = 0; j < used; j++) {
      int32_t best = best_of(score, n, taken);
      taken[best] = 1;
      id[j] = (float)best;
      weight[j] = p[best];
    }
    if (gating == SOFTMAX_OF_CHOSEN) softmax(weight, used, weight);
    for (int32_t j = 0; j < used; j++) sum += weight[j];
    for (int32_t j = 0; j < used; j++) weight[j] = (op->i[2] ? weight[j] / sum : weight[j]) * op->f[0];
    if (scale)
      for (int32_t j = 0; j < used; j++) weight[j] *= scale[(int32_t)id[j]];
  }
}

void pl_do_moe_sum(const pl_run_ctx *c, const pl_op *op) {
  const pl_view *shared = &op->src[2], *gate = &op->src[3];
  int64_t n = op->dst[0].cols, first, last;
  int32_t used = op->i[0];
  pl_my_rows(c, pl_rows(c->step, &op->dst[0]), &first, &last);
  for (int64_t t = first; t < last; t++) {
    const float *y = pl_at(c, &op->src[0], t), *weight = (const float *)pl_at(c, &op->src[1], t) + used;
    float *out = pl_at(c, &op->dst[0], t);
    for (int64_t i = 0; i < n; i++) out[i] = y[i] * weight[0];
    for (int32_t j = 1; j < used; j++)
      for (int64_t i = 0; i < n; i++) out[i] += y[j * n + i] * weight[j];
    if (shared->buf < 0) continue;
    const float *s = pl_at(c, shared, t);
    float share = gate->buf < 0 ? 1.0f : 1.0f / (1.0f + pl_exp(-*(const float *)pl_at(c, gate, t)));
    for (int64_t i = 0; i < n; i++) out[i] += s[i] * share;
  }
}

/* ---- matmul ------------------------------------------------------------------------------------------------
 *
 * Second terms of some blocks only are multiplied as in mm.c, in lists of the tokens that have them for each unit of
 * blocks; here a list is of the tokens of one kernel call. */

/* A matmul with experts under way on one thread. */
typedef struct work {
  const pl_run_ctx *c;
  const pl_op *op;
  pl_source s;
  int32_t used, terms;   /* slots of a token; terms of its activations */
  int64_t n, row;        /* rows of an expert's matrix; bytes of one term of an activation row */
  uint8_t *panel;        /* where panels are made if need be */
  int32_t *start, *pair; /* expert e has the pairs start[e] .. start[e+1]-1; a pair is token * used + slot */
  int32_t *busy;         /* experts that have pairs, ascending */
  uint8_t *tile;         /* [PL_Y_ROWS][terms][row] activations of pairs */
  int32_t n_units;       /* units of blocks with second terms or without; 0: all have them */
  int32_t *first, *at;   /* unit u has the entries first[u] .. first[u+1]-1; at: pairs of the tile */
  pl_q8 *block;          /* [entries][unit] */
} work;

/* Memory of so many bytes at *at, which moves on; NULL if mem is. */
static void *take(uint8_t *mem, int64_t *at, int64_t bytes) {
  int64_t here = *at;
  *at += pl_align64(bytes);
  return mem ? mem + here : NULL;
}

/* Fills in w but for what belongs to the step. Returns the bytes of mem that it takes; mem NULL: only that. */
static int64_t lay_out(work *w, const pl_op *op, uint8_t *mem, int64_t max_rows) {
  int64_t n = op->dst[0].cols / op->i[4], n_experts = op->src[0].rows / n, k = op->src[0].cols, at = 0;
  w->used = op->i[4];
  w->terms = op->i[0];
  w->n = n;
  w->row = op->src[1].type == PL_F32 ? k * (int64_t)sizeof(float) : k / 32 * (int64_t)sizeof(pl_q8);
  w->n_units = op->i[1] ? (int32_t)(k / 32 / op->i[3]) : 0;
  w->panel = take(mem, &at, pl_source_scratch(op, &op->src[0]));
  w->start = take(mem, &at, (n_experts + 1) * 4);
  w->pair = take(mem, &at, max_rows * w->used * 4);
  w->busy = take(mem, &at, n_experts * 4);
  w->tile = take(mem, &at, w->row * w->terms * PL_Y_ROWS);
  w->first = take(mem, &at, (w->n_units + 1) * 4);
  w->at = take(mem, &at, (int64_t)w->n_units * PL_Y_ROWS * 4);
  w->block = take(mem, &at, w->n_units ? w->row * PL_Y_ROWS : 0);
  return at;
}

int64_t pl_mm_id_scratch(const pl_op *op, int64_t max_rows) {
  work w;
  return lay_out(&w, op, NULL, max_rows);
}

/* The expert of slot j of token t: j if there is no route; -1 where the route is no expert's number. */
static int64_t expert_of(const work *w, int64_t t, int32_t j, int64_t n_experts) {
  if (w->op->src[2].buf < 0) return j;
  float id = ((const float *)pl_at(w->c, &w->op->src[2], t))[j];
  return id >= 0 && id < (float)n_experts ? (int64_t)id : -1;
}

/* Groups the pairs of T tokens by expert, tokens ascending; returns the number of experts that have some. */
static int32_t group(work *w, int64_t T) {
  int64_t n_experts = w->op->src[0].rows / w->n, e;
  int32_t n_busy = 0;
  memset(w->start, 0, sizeof *w->start * (size_t)(n_experts + 1));
  for (int64_t t = 0; t < T; t++)
    for (int32_t j = 0; j < w->used; j++)
      if ((e = expert_of(w, t, j, n_experts)) >= 0) w->start[e + 1]++;
  for (e = 0; e < n_experts; e++) {
    if (w->start[e + 1]) w->busy[n_busy++] = (int32_t)e;
    w->start[e + 1] += w->start[e];
  }
  for (int64_t t = 0; t < T; t++)
    for (int32_t j = 0; j < w->used; j++)
      if ((e = expert_of(w, t, j, n_experts)) >= 0) w->pair[w->start[e]++] = (int32_t)t * w->used + j;
  for (e = n_experts; e > 0; e--) w->start[e] = w->start[e - 1];
  w->start[0] = 0;
  return n_busy;
}

/* The activations of nt pairs, one after the other. */
static void gather(const work *w, const int32_t *pair, int32_t nt) {
  const pl_view *a = &w->op->src[1];
  int32_t slots = w->op->i[5] ? w->used : 1;
  for (int32_t i = 0; i < nt; i++) {
    const uint8_t *x = pl_local_at(w->c, w->op, a, pair[i] / w->used);
    if (slots > 1) x += pair[i] % w->used * w->row;
    for (int32_t term = 0; term < w->terms; term++)
      memcpy(w->tile + (i * w->terms + term) * w->row, x + term * slots * w->row, (size_t)w->row);
  }
}

/* Lists the second terms of the tile's nt pairs. */
static void list(const work *w, int32_t nt) {
  int32_t unit = w->op->i[3], n = 0;
  for (int32_t u = 0; u < w->n_units; u++) {
    w->first[u] = n;
    for (int32_t i = 0; i < nt; i++) {
      const pl_q8 *lo = (const pl_q8 *)(const void *)(w->tile + (2 * i + 1) * w->row) + u * unit;
      if (!pl_has_unit(lo, unit)) continue;
      w->at[n] = i;
      memcpy(w->block + (int64_t)n * unit, lo, sizeof *lo * (size_t)unit);
      n++;
    }
  }
  w->first[w->n_units] = n;
}

/* y [nt][cols] = the tile's nt pairs times the panels; lo [nt][cols]: for what the lists add, if they are used. */
static void tile_times(const work *w, const pl_panels *v, int32_t nt, int listed, float *y, float *lo) {
  int64_t k = w->s.w->cols;
  int32_t cols = v->cols, rows = listed ? nt : nt * w->terms, unit = w->op->i[3];
  memset(y, 0, sizeof(float) * (size_t)(rows * cols));
  pl_run_panels(w->c, &w->s, v, 0, k, w->tile, listed ? 2 * w->row : w->row, rows, pl_in_order, y);
  if (listed) {
    int64_t unit_bytes = pl_unit_bytes(w->c, &w->s, unit);
    memset(lo, 0, sizeof(float) * (size_t)(nt * cols));
    for (int32_t u = 0; u < w->n_units; u++) {
      int32_t i = w->first[u], n = w->first[u + 1] - i;
      if (n)
        pl_run_panels(w->c, &w->s, v, u * unit_bytes, 32 * unit, w->block + (int64_t)i * unit,
                      unit * (int64_t)sizeof(pl_q8), n, w->at + i, lo);
    }
    for (int32_t i = 0; i < nt * cols; i++) y[i] += lo[i];
  } else if (w->terms > 1) {
    for (int32_t t = 0; t < nt; t++)
      for (int32_t r = 0; r < cols; r++) y[t * cols + r] = y[2 * t * cols + r] + y[(2 * t + 1) * cols + r];
  }
}

/* Panels [first, last) of expert e times its tokens. */
static void multiply(const work *w, int64_t e, int64_t first, int64_t last) {
  const pl_run_ctx *c = w->c;
  const pl_view *out = &w->op->dst[0], *bias = &w->op->src[3];
  int64_t n_pairs = w->start[e + 1] - w->start[e], n_panels = w->n / PL_PANEL;
  int listed = w->n_units && n_pairs > PL_LISTED_ABOVE, pairs = c->kern->mm2[w->s.type] && !w->s.widen;
  int32_t rows = listed ? 1 : w->terms, step = PL_Y_ROWS / rows;
  const float *b = bias->buf >= 0 ? (const float *)pl_at(c, bias, 0) + e * w->n : NULL;
  float *row[PL_Y_ROWS];
  _Alignas(64) float y[PL_Y_ROWS * 2 * PL_PANEL], lo[PL_Y_ROWS * 2 * PL_PANEL];
  for (int64_t t0 = 0; t0 < n_pairs; t0 += step) {
    const int32_t *pair = w->pair + w->start[e] + t0;
    int32_t nt = (int32_t)(n_pairs - t0 < step ? n_pairs - t0 : step);
    gather(w, pair, nt);
    if (listed) list(w, nt);
    for (int32_t i = 0; i < nt; i++) row[i] = (float *)pl_at(c, out, pair[i] / w->used) + pair[i] % w->used * w->n;
    for (int64_t p = first, n; p < last; p += n) {
      n = pairs && nt * rows >= PL_PAIRS_FROM && p + 1 < last ? 2 : 1;
      pl_panels v = pl_get_panels(c, &w->s, e * n_panels + p, n, PL_PANEL, PL_PANEL, w->panel);
      tile_times(w, &v, nt, listed, y, lo);
      for (int32_t i = 0; i < nt; i++) {
        float *to = row[i] + p * PL_PANEL, *from = y + i * v.cols;
        if (b)
          for (int32_t r = 0; r < v.cols; r++) from[r] += b[p * PL_PANEL + r];
        memcpy(to, from, sizeof(float) * (size_t)v.cols);
      }
    }
  }
}

void pl_do_mm_id(const pl_run_ctx *c, const pl_op *op) {
  work w = {.c = c, .op = op, .s = pl_source_of(c->kern, op, &op->src[0])};
  lay_out(&w, op, c->scratch, c->prog->max_tokens);
  int64_t n = w.n / PL_PANEL, items = group(&w, pl_rows(c->step, &op->dst[0])) * n, first, last;
  while (pl_claim(c, op, items, items / (c->n_threads * 8) + 1, &first, &last))
    while (first < last) {
      int64_t k = first / n, end = (k + 1) * n < last ? (k + 1) * n : last;
      multiply(&w, w.busy[k], first - k * n, end - k * n);
      first = end;
    }
}
