/* program.c: checks a program once, runs it once per step. */
#include "prog/program.h"

#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "prog/kv.h"
#include "quant/types.h"

static const pl_op_info op_infos[] = {
#define PL_OP(name, id) {#name, id},
#include "prog/op.inc"
#undef PL_OP
};

const pl_op_info *pl_op_at(int32_t i) { return i >= 0 && i < PL_N_OPS ? &op_infos[i] : NULL; }

static int is_mm(const pl_op *op) {
  return op->kind == PL_OP_mm || op->kind == PL_OP_mm_glu || op->kind == PL_OP_mm_heads;
}

static int64_t op_bytes(const pl_op *ops, int32_t n_ops, int32_t max_tokens) {
  int64_t most = 64;
  for (int32_t i = 0; i < n_ops; i++) {
    int64_t n = is_mm(&ops[i])                  ? pl_mm_scratch(&ops[i])
                : ops[i].kind == PL_OP_attn     ? pl_attn_scratch(&ops[i])
                : ops[i].kind == PL_OP_kv_store ? pl_kv_scratch(&ops[i])
                : ops[i].kind == PL_OP_route    ? pl_route_scratch(&ops[i])
                : ops[i].kind == PL_OP_mm_id    ? pl_mm_id_scratch(&ops[i], max_tokens)
                                                : pl_row_scratch(&ops[i]);
    if (n > most) most = n;
  }
  return most;
}

int64_t pl_program_shared(const pl_op *ops, int32_t n_ops) {
  int64_t most = 64;
  for (int32_t i = 0; i < n_ops; i++) {
    int64_t n = ops[i].kind == PL_OP_attn ? pl_attn_shared(&ops[i]) : 0;
    if (n > most) most = n;
  }
  return most;
}

static int64_t refine_bytes(const pl_op *ops, int32_t n_ops, int32_t max_tokens) {
  int64_t most = 0;
  for (int32_t i = 0; i < n_ops; i++) {
    int64_t n = is_mm(&ops[i]) ? pl_refine_bytes(&ops[i], max_tokens) : 0;
    if (n > most) most = n;
  }
  return most;
}

/* Bytes that a thread needs for what it makes for itself, those before *act for float rows. */
static int64_t local_bytes(const pl_op *ops, int32_t n_ops, int64_t *act) {
  int64_t most[2] = {0, 0};
  for (int32_t i = 0; i < n_ops; i++)
    for (int32_t j = 0; j < 2 && ops[i].local; j++)
      if (ops[i].dst[j].buf >= 0 && ops[i].dst[j].stride > most[j]) most[j] = ops[i].dst[j].stride;
  *act = pl_align64(most[0] * PL_FEW);
  return *act + pl_align64(most[1] * PL_FEW);
}

int64_t pl_program_scratch(const pl_op *ops, int32_t n_ops, int32_t max_tokens) {
  int64_t act;
  return pl_align64(op_bytes(ops, n_ops, max_tokens)) + pl_align64(refine_bytes(ops, n_ops, max_tokens)) +
         local_bytes(ops, n_ops, &act) + 64;
}

/* Bytes of one row (plain, act) or of the whole tensor (packed); negative if the type is unknown. */
static int64_t view_row_bytes(const pl_view *v) {
  if (v->type == PL_TYPE_ACT_Q8) return v->cols / 32 * (int64_t)sizeof(pl_q8);
  return pl_row_bytes(v->type, v->cols);
}

static int view_ok(const pl_program *p, const pl_view *v) {
  if (v->buf < 0) return v->buf == -1;
  if (v->buf >= p->n_bufs || v->off < 0 || v->cols <= 0 || v->stride < 0) return 0;
  int64_t rows = v->rows >= 0           ? v->rows
                 : v->rows == PL_ROWS_T ? p->max_tokens
                 : v->rows == PL_ROWS_S ? p->max_seqs
                                        : p->max_out;
  int64_t bytes;
  if (v->layout == PL_PACKED) {
    bytes = pl_pack_bytes(v->type, rows, v->cols);
    if (bytes <= 0) return 0;
  } else {
    if (rows <= 0) return 0;
    bytes = (rows - 1) * v->stride + view_row_bytes(v);
  }
  return bytes <= p->sizes[v->buf] - v->off;
}

static int is_float(const pl_view *v) { return v->type == PL_F32; }

/* Whether a matmul of op can run with the weight w, given its activations. */
static int weight_ok(const pl_program *p, const pl_op *op, const pl_view *w) {
  const pl_view *a = &op->src[1];
  if (w->type < 0 || w->type >= PL_N_TYPES || w->rows < 1) return 0;
  int widen = a->type == PL_F32 && pl_type_act(w->type) != PL_ACT_F32; /* dequantize the weight */
  if (widen ? w->layout == PL_PACKED || !p->kern->deq[w->type]
            : !p->kern->mm[w->type] || (a->type == PL_F32) != (pl_type_act(w->type) == PL_ACT_F32))
    return 0;
  return !op->i[1] || (op->i[0] == 2 && op->i[3] >= 1 && op->i[3] <= 8 && w->cols % (32 * op->i[3]) == 0 &&
                       32 * op->i[3] % pl_type_block(w->type) == 0);
}

/* Whether a view is a K or V cache of n_kv heads. */
static int cache_ok(pl_program *p, const pl_view *c, int64_t n_kv, int is_k) {
  if (n_kv < 1 || n_kv > INT32_MAX || c->cols < 1 || c->cols > PL_HEAD_MAX) return 0;
  int64_t page = pl_kv_page_bytes(c->type, (int32_t)n_kv, (int32_t)c->cols, is_k);
  if (c->buf < 0 || c->buf >= p->n_bufs || c->off < 0 || page <= 0 || c->stride < page || c->rows < 1) return 0;
  if ((int64_t)(c->rows - 1) * c->stride + page > p->sizes[c->buf] - c->off) return 0;
  if (p->n_pages == 0 || c->rows < p->n_pages) p->n_pages = c->rows;
  return 1;
}

/* What mm_heads does after the matmul. */
static int heads_ok(pl_program *p, const pl_op *op) {
  const pl_view *y = &op->dst[0], *table = &op->src[3], *norm = &op->src[4];
  int32_t hd = op->i[4], n_rot = op->i[5];
  if (hd < PL_PANEL || hd % PL_PANEL || y->cols % hd || y->rows != PL_ROWS_T) return 0;
  if (n_rot < 0 || n_rot > hd || n_rot % 2 ||
      (n_rot && (table->buf < 0 || !is_float(table) || table->cols < n_rot)))
    return 0;
  if (norm->buf >= 0 && (!is_float(norm) || norm->cols != hd)) return 0;
  return op->i[7] == 0 || (op->dst[1].cols == hd && cache_ok(p, &op->dst[1], y->cols / hd, op->i[7] == 1));
}

static int op_ok(pl_program *p, const pl_op *op) {
  if (op->kind < 0 || op->kind >= PL_N_OPS) return 0;
  int is_kv = op->kind == PL_OP_kv_store || op->kind == PL_OP_attn;
  for (int j = 0; j < 5; j++)
    if ((j < 2 && !is_kv && !view_ok(p, &op->dst[j])) || (!is_kv && !view_ok(p, &op->src[j]))) return 0;
  if (op->f[7] != 0 && (op->i[7] < 1 || op->i[7] > 8)) return 0; /* units of second terms */
  const pl_view *w = &op->src[0];
  switch (op->kind) {
    case PL_OP_embed: {
      if (w->type < 0 || w->type >= PL_N_TYPES || !p->kern->deq[w->type] || w->layout != PL_PLAIN) return 0;
      int32_t *below = op->i[0] ? &p->n_pos : &p->n_vocab;
      if (*below == 0 || w->rows < *below) *below = w->rows;
      return is_float(&op->dst[0]) && op->dst[0].cols == w->cols;
    }
    case PL_OP_mm:
    case PL_OP_mm_glu:
    case PL_OP_mm_heads: {
      if (op->kind == PL_OP_mm_glu && (op->src[2].buf < 0 || op->src[2].rows != w->rows ||
                                       op->src[2].cols != w->cols || !weight_ok(p, op, &op->src[2])))
        return 0;
      const pl_view *a = &op->src[1], *y = &op->dst[0];
      if (op->kind == PL_OP_mm_heads && !heads_ok(p, op)) return 0;
      return weight_ok(p, op, w) && is_float(y) && y->cols == w->rows && op->i[0] >= 1 &&
             a->cols == w->cols * op->i[0];
    }
    case PL_OP_mm_id: {
      const pl_view *a = &op->src[1], *route = &op->src[2], *bias = &op->src[3], *y = &op->dst[0];
      int64_t used = op->i[4], n = used < 1 ? 0 : y->cols / used;
      if (n < 1 || n % PL_PANEL || y->cols % used || w->rows % n || w->rows / n > 1 << 20) return 0;
      return weight_ok(p, op, w) && is_float(y) && y->buf >= 0 && op->i[0] >= 1 && op->i[0] <= 2 &&
             a->cols == w->cols * op->i[0] * (op->i[5] ? used : 1) &&
             (route->buf < 0 ? w->rows == used * n : is_float(route) && route->cols == 2 * used) &&
             (bias->buf < 0 || (is_float(bias) && bias->cols == w->rows));
    }
    case PL_OP_route:
      return is_float(w) && is_float(&op->dst[0]) && op->i[0] >= 1 && op->i[0] <= w->cols &&
             op->dst[0].cols == 2 * op->i[0] && w->cols <= 1 << 20 && pl_route_ok(op) &&
             (op->src[1].buf < 0 || (is_float(&op->src[1]) && op->src[1].cols == w->cols)) &&
             (op->src[2].buf < 0 || (is_float(&op->src[2]) && op->src[2].cols == w->cols));
    case PL_OP_moe_sum: {
      const pl_view *shared = &op->src[2], *gate = &op->src[3];
      int64_t n = op->dst[0].cols, used = op->i[0];
      return is_float(w) && is_float(&op->dst[0]) && used >= 1 && w->cols == used * n && is_float(&op->src[1]) &&
             op->src[1].buf >= 0 && op->src[1].cols == 2 * used &&
             (shared->buf < 0 || (is_float(shared) && shared->cols == n)) &&
             (gate->buf < 0 || (is_float(gate) && gate->cols == 1));
    }
    case PL_OP_kv_store:
    case PL_OP_attn: {
      int is_attn = op->kind == PL_OP_attn;
      const pl_view *kc = is_attn ? &op->src[1] : &op->dst[0], *vc = is_attn ? &op->src[2] : &op->dst[1];
      int32_t n_kv = op->i[is_attn], hd_k = op->i[1 + is_attn], hd_v = op->i[2 + is_attn];
      if (n_kv < 1 || hd_k < 1 || hd_k > PL_HEAD_MAX || hd_v < 1 || hd_v > PL_HEAD_MAX || kc->cols != hd_k ||
          vc->cols != hd_v)
        return 0;
      if (is_attn ? op->i[0] < n_kv || op->i[0] % n_kv || op->src[0].cols != (int64_t)op->i[0] * hd_k ||
                        op->i[4] == INT32_MIN
                  : op->src[0].cols != (int64_t)n_kv * hd_k || op->src[1].cols != (int64_t)n_kv * hd_v)
        return 0;
      if (!cache_ok(p, kc, n_kv, 1) || !cache_ok(p, vc, n_kv, 0)) return 0;
      const pl_view *sinks = &op->src[3];
      if (is_attn && sinks->buf >= 0 && (!view_ok(p, sinks) || !is_float(sinks) || sinks->cols != op->i[0]))
        return 0;
      return is_attn ? view_ok(p, &op->src[0]) && view_ok(p, &op->dst[0]) && view_ok(p, &op->dst[1])
                     : view_ok(p, &op->src[0]) && view_ok(p, &op->src[1]);
    }
    case PL_OP_altup_predict:
    case PL_OP_altup_correct:
    case PL_OP_altup_add:
      return pl_altup_ok(op);
    case PL_OP_short_conv:
    case PL_OP_conv_silu:
    case PL_OP_ssd: {
      const pl_view *x = &op->src[0], *y = &op->dst[0], *state = &op->dst[1];
      if (y->buf < 0 || state->buf < 0 || state->rows < 1 || op->src[1].buf < 0) return 0;
      if (op->kind == PL_OP_ssd ? !pl_ssd_ok(op)
                                : op->i[0] < 2 || op->i[0] > 64 || state->cols != (op->i[0] - 1) * y->cols ||
                                      op->src[1].cols != op->i[0] * y->cols)
        return 0;
      if (op->kind == PL_OP_short_conv ? x->cols != 3 * y->cols : op->src[2].buf < 0) return 0;
      if (op->kind == PL_OP_conv_silu && (x->cols != y->cols || op->src[2].cols != y->cols)) return 0;
      if (p->n_pages == 0 || state->rows < p->n_pages) p->n_pages = state->rows;
      return 1;
    }
    case PL_OP_slice:
      return op->i[1] >= 1 && op->i[0] >= 0 && op->dst[0].cols % op->i[1] == 0 &&
             op->src[0].cols % op->i[1] == 0 &&
             op->i[0] + op->dst[0].cols / op->i[1] <= op->src[0].cols / op->i[1];
    case PL_OP_concat: {
      int64_t n = 0;
      if (op->i[0] < 1) return 0;
      for (int j = 0; j < 4 && op->src[j].buf >= 0; j++) {
        if (op->src[j].cols % op->i[0]) return 0;
        n += op->src[j].cols;
      }
      return n == op->dst[0].cols;
    }
    case PL_OP_rope:
      return op->i[0] >= 1 && op->i[1] >= 1 && op->i[2] >= 0 && op->i[4] >= 0 && op->i[2] + op->i[4] <= op->i[1] &&
             (int64_t)op->i[0] * op->i[1] <= op->dst[0].cols && op->src[1].cols == op->i[2];
    case PL_OP_swiglu_clamped:
      return op->src[0].cols == op->src[1].cols && op->f[1] != 0;
    case PL_OP_scale:
      return op->src[1].buf < 0 || op->src[1].cols == op->dst[0].cols;
    case PL_OP_relu:
    case PL_OP_xielu:
      return op->src[1].buf < 0 || op->src[1].cols == op->src[0].cols;
    case PL_OP_rope_table:
      return op->i[0] >= 0 && op->i[1] >= 0 && op->i[1] < 1 << 20 &&
             (op->src[1].buf < 0 || op->src[1].cols == op->src[0].cols);
    default:
      return 1;
  }
}

pl_program *pl_program_new(const pl_op *ops, int32_t n_ops, void *const *bases, const int64_t *sizes,
                           int32_t n_bufs, int32_t max_tokens, int32_t max_seqs, int32_t max_out, int32_t *bad) {
  int32_t ignored;
  if (!bad) bad = &ignored;
  *bad = -1;
  if (!ops || n_ops < 1 || !bases || !sizes || n_bufs < 1 || max_tokens < 1 || max_seqs < 1 || max_out < 1)
    return NULL;
  pl_program *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->ops = malloc(sizeof *ops * (size_t)n_ops);
  p->base = malloc(sizeof *p->base * (size_t)n_bufs);
  p->sizes = malloc(sizeof *sizes * (size_t)n_bufs);
  p->next = calloc((size_t)n_ops, sizeof *p->next);
  p->first_head = calloc((size_t)n_ops, sizeof *p->first_head);
  if (!p->ops || !p->base || !p->sizes || !p->next || !p->first_head) {
    pl_program_free(p);
    return NULL;
  }
  memcpy(p->ops, ops, sizeof *ops * (size_t)n_ops);
  memcpy(p->base, bases, sizeof *p->base * (size_t)n_bufs);
  memcpy(p->sizes, sizes, sizeof *sizes * (size_t)n_bufs);
  p->n_ops = n_ops;
  p->n_bufs = n_bufs;
  p->max_tokens = max_tokens;
  p->max_seqs = max_seqs;
  p->max_out = max_out;
  p->kern = pl_kern();
  for (int32_t i = 0; i < n_ops; i++)
    if (!op_ok(p, &p->ops[i])) {
      *bad = i;
      pl_program_free(p);
      return NULL;
    }
  int64_t heads = 0;
  for (int32_t i = 0; i < n_ops; i++) {
    p->first_head[i] = (int32_t)heads;
    if (ops[i].kind == PL_OP_mm_heads) heads += ops[i].dst[0].cols / ops[i].i[4];
  }
  p->panels_done = calloc((size_t)heads + 1, sizeof *p->panels_done);
  if (!p->panels_done) {
    pl_program_free(p);
    return NULL;
  }
  p->scratch = pl_program_scratch(ops, n_ops, max_tokens);
  p->shared_bytes = pl_program_shared(ops, n_ops);
  p->refine = pl_align64(refine_bytes(ops, n_ops, max_tokens));
  p->local = local_bytes(ops, n_ops, &p->local_act);
  return p;
}

void pl_program_free(pl_program *p) {
  if (!p) return;
  pl_mem_free(p->thread_mem, p->scratch * p->thread_count);
  pl_mem_free(p->shared, p->shared_bytes);
  free(p->counters);
  free(p->ops);
  free(p->base);
  free(p->sizes);
  free((void *)p->next);
  free((void *)p->panels_done);
  free(p->first_head);
  free(p);
}

/* Everything a step points at is in range, so that no op needs to look. */
static int step_ok(const pl_program *p, const pl_step *s) {
  if (s->n_tokens < 1 || s->n_tokens > p->max_tokens || s->n_seqs < 1 || s->n_seqs > p->max_seqs || s->n_out < 0 ||
      s->n_out > p->max_out)
    return 0;
  if (s->q_start[0] != 0 || s->q_start[s->n_seqs] != s->n_tokens) return 0;
  for (int32_t t = 0; t < s->n_tokens; t++) {
    if (p->n_vocab && (s->token[t] < 0 || s->token[t] >= p->n_vocab)) return 0;
    if (p->n_pages && (s->slot[t] < 0 || s->slot[t] / PL_PAGE >= p->n_pages)) return 0;
  }
  for (int32_t i = 0; i < s->n_seqs; i++) {
    int32_t n = s->q_start[i + 1] - s->q_start[i], pages = (s->kv_len[i] + PL_PAGE - 1) / PL_PAGE;
    if (n < 1 || s->kv_len[i] < n || (p->n_pages && pages > s->max_pages)) return 0;
    for (int32_t t = s->q_start[i]; t < s->q_start[i + 1]; t++)
      if (s->pos[t] < 0 || s->pos[t] >= s->kv_len[i] || (p->n_pos && s->pos[t] >= p->n_pos)) return 0;
    if (p->n_pages)
      for (int32_t j = 0; j < pages; j++) {
        int32_t page = s->page[(int64_t)i * s->max_pages + j];
        if (page < 0 || page >= p->n_pages) return 0;
      }
  }
  for (int32_t o = 0; o < s->n_out; o++)
    if (s->out[o] < 0 || s->out[o] >= s->n_tokens) return 0;
  return 1;
}

typedef struct job {
  pl_program *prog;
  pl_pool *pool;
  const pl_step *step;
  int32_t first, last;
  int few;
} job;

static void run(void *ctx, int tid, int n_threads) {
  job *j = ctx;
  pl_program *p = j->prog;
  uint8_t *mem = p->thread_mem + p->scratch * tid, *local = mem + p->scratch - p->local;
  int few = j->few;
  pl_run_ctx c = {p, j->step, p->kern, tid, n_threads, few, mem, local - p->refine, local};
  for (int32_t i = j->first; i < j->last; i++) {
    if (p->ops[i].barrier >> few & 1 && i > j->first) pl_pool_barrier(j->pool);
    pl_op_fns[p->ops[i].kind](&c, &p->ops[i]);
  }
}

/* Working memory for n threads; 0 if there is none. */
static int make_room(pl_program *p, int32_t n) {
  pl_mem_free(p->thread_mem, p->scratch * p->thread_count);
  free(p->counters);
  p->thread_count = 0;
  p->thread_mem = pl_mem_alloc(p->scratch * n, 0);
  p->n_counters = pl_attn_counters(n);
  p->counters = calloc((size_t)p->n_counters, sizeof *p->counters);
  if (n > 1 && !p->shared) p->shared = pl_mem_alloc(p->shared_bytes, 0);
  if (p->thread_mem && p->counters && (n == 1 || p->shared)) {
    p->thread_count = n;
    return 1;
  }
  pl_mem_free(p->thread_mem, p->scratch * n);
  p->thread_mem = NULL;
  return 0;
}

int32_t pl_run(pl_program *p, pl_pool *pool, const pl_step *step, int32_t first, int32_t last) {
  if (!p || !pool || !step || first < 0 || last > p->n_ops || first > last || !step_ok(p, step)) return PL_E_ARG;
  if (p->thread_count < pl_pool_threads(pool) && !make_room(p, pl_pool_threads(pool))) return PL_E_MEM;
  p->serial++;
  for (int32_t i = first; i < last; i++) atomic_store_explicit(&p->next[i], 0, memory_order_relaxed);
  /* an op alone, as a trace runs it, leaves its result where it can be read */
  int few = step->n_tokens <= PL_FEW && step->n_out <= PL_FEW && first == 0 && last == p->n_ops;
  job j = {p, pool, step, first, last, few};
  pl_pool_run(pool, run, &j);
  return 0;
}
