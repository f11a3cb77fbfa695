#include "base/pool.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/thread.h"
#include "quant/types.h"

enum {
  SPINS = 2000, /* times one pause instruction: some tens of microseconds */
  BETWEEN = 4,  /* times longer between runs: what a caller does from one step to the next */
  TRY = 64      /* where spinning is in vain, it is tried again after so many waits */
};

/* A number that threads wait on. sleepers is read after value is written and written before value is read, both
 * sequentially consistent, so either the waker sees the sleeper or the sleeper sees the new value. */
typedef struct signal {
  atomic_uint value;
  atomic_int sleepers;
  atomic_int vain; /* waits since spinning last ended one */
  pl_mutex mutex;
  pl_cond cond;
} signal_t;

typedef struct worker {
  pl_pool *pool;
  pl_thread thread;
  int tid;
} worker;

struct pl_pool {
  int n, spins, stop;
  pl_pool_fn *fn;
  void *ctx;
  signal_t start, phase;
  atomic_int arrived;
  worker *workers; /* [n-1], tids 1..n-1 */
};

static void signal_init(signal_t *s) {
  atomic_init(&s->value, 0);
  atomic_init(&s->sleepers, 0);
  atomic_init(&s->vain, 0);
  pl_mutex_init(&s->mutex);
  pl_cond_init(&s->cond);
}

static void signal_free(signal_t *s) {
  pl_mutex_free(&s->mutex);
  pl_cond_free(&s->cond);
}

static void signal_raise(signal_t *s) {
  atomic_fetch_add(&s->value, 1);
  if (atomic_load(&s->sleepers)) {
    pl_mutex_lock(&s->mutex); /* until sleepers really sleep; they need the mutex again when they wake */
    pl_mutex_unlock(&s->mutex);
    pl_cond_broadcast(&s->cond);
  }
}

/* Returns once the value differs from seen. Threads that spin while what they wait for needs their core (several share
 * one, or another program has it) make every wait as long as the spinning: after two waits in vain they sleep at once,
 * and try now and then whether that has changed. */
static void signal_wait(signal_t *s, unsigned seen, int spins) {
  int vain = atomic_load_explicit(&s->vain, memory_order_relaxed);
  if (vain >= 2 && vain % TRY) spins = 1;
  for (int i = 0; i < spins; i++) {
    if (atomic_load_explicit(&s->value, memory_order_acquire) != seen) {
      if (vain && spins > 1) atomic_store_explicit(&s->vain, 0, memory_order_relaxed);
      return;
    }
    pl_pause();
  }
  atomic_store_explicit(&s->vain, vain < TRY ? vain + 1 : 2, memory_order_relaxed);
  pl_mutex_lock(&s->mutex);
  atomic_fetch_add(&s->sleepers, 1);
  while (atomic_load(&s->value) == seen) pl_cond_wait(&s->cond, &s->mutex);
  atomic_fetch_sub(&s->sleepers, 1);
  pl_mutex_unlock(&s->mutex);
}

void pl_pool_barrier(pl_pool *p) {
  if (p->n == 1) return;
  unsigned seen = atomic_load(&p->phase.value);
  if (atomic_fetch_add(&p->arrived, 1) == p->n - 1) {
    atomic_store(&p->arrived, 0);
    signal_raise(&p->phase);
  } else {
    signal_wait(&p->phase, seen, p->spins);
  }
}

PL_THREAD_FN(work, arg) {
  worker *w = arg;
  pl_pool *p = w->pool;
  for (unsigned seen = 0;; seen++) {
    signal_wait(&p->start, seen, p->spins * BETWEEN);
    if (p->stop) return 0;
    p->fn(p->ctx, w->tid, p->n);
    pl_pool_barrier(p);
  }
}

void pl_pool_run(pl_pool *p, pl_pool_fn *fn, void *ctx) {
  if (p->n > 1) {
    p->fn = fn;
    p->ctx = ctx;
    signal_raise(&p->start);
  }
  fn(ctx, 0, p->n);
  pl_pool_barrier(p);
}

pl_pool *pl_pool_new(int32_t n) {
  if (n < 1 || n > 1024) return NULL;
  pl_pool *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  p->workers = calloc((size_t)n, sizeof *p->workers);
  if (!p->workers) {
    free(p);
    return NULL;
  }
  p->spins = n > pl_cpus() ? 0 : SPINS;
  signal_init(&p->start);
  signal_init(&p->phase);
  atomic_init(&p->arrived, 0);
  for (p->n = 1; p->n < n; p->n++) { /* workers read p->n only after the first start, when it is final */
    worker *w = &p->workers[p->n - 1];
    w->pool = p;
    w->tid = p->n;
    if (pl_thread_start(&w->thread, work, w)) {
      pl_pool_free(p);
      return NULL;
    }
  }
  return p;
}

void pl_pool_free(pl_pool *p) {
  if (!p) return;
  p->stop = 1;
  signal_raise(&p->start);
  for (int i = 0; i < p->n - 1; i++) pl_thread_join(p->workers[i].thread);
  signal_free(&p->start);
  signal_free(&p->phase);
  free(p->workers);
  free(p);
}

int pl_pool_threads(const pl_pool *p) { return p->n; }

typedef struct pack_job {
  int32_t type, mapped;
  const uint8_t *src;
  int64_t rows, cols, chunk; /* chunk: panels that a thread takes at a time */
  void *dst;
  atomic_llong next;
} pack_job;

enum {
  PACK_BYTES = 1 << 20, /* of a chunk of the source: few are resident at a time */
  NEARBY = 1 << 21 /* a system that reads a page of a file maps its neighbours too, within blocks of this size */
};

/* Drops the pages of bytes [first, last) of the source, and of its other bytes those that may have come with them. */
static void drop(const pack_job *j, int64_t first, int64_t last) {
  int64_t bytes = j->rows * pl_row_bytes(j->type, j->cols), start = (int64_t)((uintptr_t)j->src % NEARBY);
  first = (start + first) / NEARBY * NEARBY - start;
  last = (start + last + NEARBY - 1) / NEARBY * NEARBY - start;
  if (first < 0) first = 0;
  if (last > bytes) last = bytes;
  pl_mem_drop(j->src + first, last - first);
}

static void pack_some(void *ctx, int tid, int n_threads) {
  pack_job *j = ctx;
  int64_t n = (j->rows + PL_PANEL - 1) / PL_PANEL, panel = pl_row_bytes(j->type, j->cols) * PL_PANEL, first;
  while ((first = atomic_fetch_add(&j->next, j->chunk)) < n) {
    int64_t last = first + j->chunk < n ? first + j->chunk : n;
    pl_pack(j->type, j->src, j->rows, j->cols, first, last, j->dst);
    if (j->mapped) drop(j, first * panel, last * panel);
  }
}

int32_t pl_pool_pack(pl_pool *pool, int32_t type, const void *src, int64_t rows, int64_t cols, void *dst,
                     int32_t mapped) {
  if (!pool || !src || !dst || pl_pack_bytes(type, rows, cols) <= 0) return PL_E_TYPE;
  pack_job j = {.type = type, .mapped = mapped, .src = src, .rows = rows, .cols = cols, .dst = dst};
  j.chunk = PACK_BYTES / (pl_row_bytes(type, cols) * PL_PANEL) + 1;
  atomic_init(&j.next, 0);
  pl_pool_run(pool, pack_some, &j);
  return 0;
}
