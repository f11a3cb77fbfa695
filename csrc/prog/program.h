/* program.h: what the executor and the ops share. */
#ifndef PL_PROGRAM_H
#define PL_PROGRAM_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "kern/kern.h"
#include "pyllm.h"

enum {
#define PL_OP(name, id) PL_OP_##name = id,
#include "prog/op.inc"
#undef PL_OP
  PL_N_OPS
};

struct pl_program {
  pl_op *ops; /* [n_ops] */
  int32_t n_ops, n_bufs, max_tokens, max_seqs, max_out;
  uint8_t **base;  /* [n_bufs] */
  int64_t *sizes;  /* [n_bufs] bytes */
  int64_t scratch; /* bytes per thread: working memory of an op, refine for a list of second terms, local */
  int64_t refine;
  int64_t local; /* for what a thread makes for itself: float rows, and from local_act on act rows */
  int64_t local_act;
  uint64_t serial;      /* of the run */
  atomic_int *next;     /* [n_ops] work items handed out so far, zeroed when a step starts */
  uint8_t *thread_mem;  /* [n_threads][scratch], made at the first run */
  int32_t thread_count; /* threads that thread_mem serves */
  uint8_t *shared;      /* [shared_bytes] working memory of all threads of an op, made when there are several */
  int64_t shared_bytes;
  atomic_int *counters; /* [n_counters] zero between ops */
  int32_t n_counters;
  atomic_int *panels_done; /* of each head of each mm_heads, zero between ops */
  int32_t *first_head;     /* [n_ops] where those of an op begin */
  int32_t n_vocab;         /* rows of the embedding table: token ids are below */
  int32_t n_pos;           /* rows of the embedding of positions, if there is one: positions are below */
  int32_t n_pages;         /* KV pages that every cache view holds */
  const pl_kern_table *kern;
};

/* One thread's view of a running step. */
typedef struct pl_run_ctx {
  pl_program *prog;
  const pl_step *step;
  const pl_kern_table *kern;
  int tid, n_threads;
  int few;          /* a step of at most PL_FEW tokens */
  uint8_t *scratch; /* this thread's */
  uint8_t *refine;  /* this thread's, for the list of second terms */
  uint8_t *local;   /* this thread's, for what it makes for itself */
} pl_run_ctx;

static inline int64_t pl_align64(int64_t n) { return (n + 63) / 64 * 64; }

static inline int64_t pl_rows(const pl_step *s, const pl_view *v) {
  return v->rows >= 0 ? v->rows : v->rows == PL_ROWS_T ? s->n_tokens : v->rows == PL_ROWS_S ? s->n_seqs : s->n_out;
}
static inline void *pl_at(const pl_run_ctx *c, const pl_view *v, int64_t row) {
  return c->prog->base[v->buf] + v->off + row * v->stride;
}
/* Row of an op's view that may be this thread's own (pl_op.local). */
static inline void *pl_local_at(const pl_run_ctx *c, const pl_op *op, const pl_view *v, int64_t row) {
  if (!op->local || !c->few) return pl_at(c, v, row);
  return c->local + (v->type == PL_TYPE_ACT_Q8 ? c->prog->local_act : 0) + row * v->stride;
}
/* The part of n rows that this thread owns in every row-wise op, so that such ops follow each other
 * unsynchronized. */
static inline void pl_my_rows(const pl_run_ctx *c, int64_t n, int64_t *first, int64_t *last) {
  *first = n * c->tid / c->n_threads;
  *last = n * (c->tid + 1) / c->n_threads;
}
/* The part of n rows that an op makes on this thread: all where each thread makes its own. */
static inline void pl_made_rows(const pl_run_ctx *c, const pl_op *op, int64_t n, int64_t *first, int64_t *last) {
  if (op->local && c->few)
    *first = 0, *last = n;
  else
    pl_my_rows(c, n, first, last);
}
/* Claims the next chunk of n items for this thread; 0 when none is left. */
static inline int pl_claim(const pl_run_ctx *c, const pl_op *op, int64_t n, int64_t chunk, int64_t *first,
                           int64_t *last) {
  int64_t i =
      (int64_t)atomic_fetch_add_explicit(&c->prog->next[op - c->prog->ops], 1, memory_order_relaxed) * chunk;
  if (i >= n) return 0;
  *first = i;
  *last = i + chunk < n ? i + chunk : n;
  return 1;
}

typedef void pl_op_fn(const pl_run_ctx *c, const pl_op *op);
extern pl_op_fn *const pl_op_fns[PL_N_OPS];

/* y [n] = the activation of g [n], times u [n] (or not, if NULL; not silu). y may be g. */
enum { PL_GLU_SILU, PL_GLU_GELU, PL_GLU_ERF };
void pl_glu(const pl_run_ctx *c, int32_t kind, const float *g, const float *u, int64_t n, float *y);

/* Head h of all tokens' rows x [T][heads][head_dim] into a K or V cache, by kv.c. */
void pl_kv_store_head(const pl_run_ctx *c, const pl_view *cache, int is_k, const pl_view *x, int32_t head_dim,
                      int32_t h);

/* Bytes of thread memory that an op needs. */
int64_t pl_row_scratch(const pl_op *op);
int64_t pl_mm_scratch(const pl_op *op);
int64_t pl_route_scratch(const pl_op *op);
int pl_route_ok(const pl_op *op);
int64_t pl_mm_id_scratch(const pl_op *op, int64_t max_rows);
int64_t pl_kv_scratch(const pl_op *op);
int64_t pl_attn_scratch(const pl_op *op);
int64_t pl_conv_scratch(const pl_op *op);
int64_t pl_ssd_scratch(const pl_op *op);
int64_t pl_altup_scratch(const pl_op *op);
/* Bytes of thread memory for the list of second terms, kept between the matmuls that read the same activations. */
int64_t pl_refine_bytes(const pl_op *op, int64_t max_rows);
/* Bytes of memory that all threads share in an op. */
int64_t pl_attn_shared(const pl_op *op);
/* Counters that attn needs with so many threads. */
int32_t pl_attn_counters(int32_t n_threads);

/* The page that position pos of sequence s lies in. */
static inline int32_t pl_page_of(const pl_step *st, int32_t s, int32_t pos) {
  return st->page[(int64_t)s * st->max_pages + pos / PL_PAGE];
}
/* Whether the shapes of an ssd op fit together. */
int pl_ssd_ok(const pl_op *op);
/* Most streams that altup's ops take. */
enum { PL_STREAMS = 8 };
/* Whether the shapes of an altup op fit together. */
int pl_altup_ok(const pl_op *op);

/* pl_do_<op>, in ops.c, mm.c, moe.c, kv.c, attn.c, altup.c, conv.c, ssm.c */
#define PL_OP(name, id) pl_op_fn pl_do_##name;
#include "prog/op.inc"
#undef PL_OP

/* Writes x [n], of row t, as activation blocks: hi [n/32] and, unless NULL, lo [n/32] with the second terms: of all
 * blocks if op->f[7] is 0 or the token's position is below op->f[6]; else of those units of op->i[7] blocks where
 * the root mean square of the scales is above op->f[7] times the mean scale of x. A unit without a second term is all
 * zeros in lo. */
void pl_put_act(const pl_run_ctx *c, const pl_op *op, int64_t t, const float *x, int64_t n, pl_q8 *hi, pl_q8 *lo);

#endif
