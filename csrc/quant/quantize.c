/* Rows of numbers to rows of a tensor type: checked, widened to float32 a few rows at a time, and encoded (the enc
 * kernels). Every block is encoded by itself, so the result does not depend on who takes which rows. */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "base/pool.h"
#include "kern/kern.h"
#include "pyllm.h"
#include "quant/types.h"

enum { CHUNK = 1 << 14 }; /* values that are widened at a time, at least a row */
/* An importance is at least this part of the greatest of its row: what a file says never mattered still may. */
#define LEAST_WEIGHT 1e-6f
#define HALF_MAX 65504.0f

/* The least magnitude that is beyond a type: what its greatest scale and code stand for, or rounds to infinity. */
static float limit(int32_t type) {
  switch (type) {
    case PL_F16:
      return 65520.0f;
    case PL_BF16:
      return 0x1.ffp127f;
    case PL_Q4_0:
      return HALF_MAX * 8;
    case PL_Q5_0:
      return HALF_MAX * 16;
    case PL_Q8_0:
      return HALF_MAX * 127;
    case PL_Q2_K:
    case PL_Q3_K:
    case PL_Q4_K:
    case PL_Q5_K:
      return HALF_MAX * 15;
    case PL_Q6_K:
      return HALF_MAX * 127;
    case PL_IQ4_NL:
    case PL_IQ4_XS:
      return HALF_MAX * 113;
    case PL_NVFP4:
      return 2689.0f; /* 448 * 6 is the greatest */
    case PL_TQ1_0:
    case PL_TQ2_0:
    case PL_Q1_0:
    case PL_Q4_1:
    case PL_Q5_1:
      return HALF_MAX;
    default:
      return INFINITY;
  }
}

static int known(int32_t type) { return type >= 0 && type < PL_N_TYPES; }

static int can_encode(int32_t type) {
  return known(type) && (pl_kern()->enc[type] || type == PL_F32 || type == PL_F16 || type == PL_BF16);
}

/* 0, or what is wrong with x [n]. */
static int32_t check(const float *x, int64_t n, float beyond) {
  uint32_t past = 0x80000000u - pl_f32_bits(beyond), found = 0;
  for (int64_t i = 0; i < n; i++) found |= (pl_f32_bits(x[i]) & 0x7fffffff) + past;
  if (!(found & 0x80000000u)) return 0;
  for (int64_t i = 0; i < n; i++)
    if ((pl_f32_bits(x[i]) & 0x7fffffff) >= 0x7f800000u) return PL_E_NUMBER;
  return PL_E_RANGE;
}

static void encode(int32_t type, const float *x, const float *w, int64_t cols, int64_t n, void *dst) {
  const pl_kern_table *k = pl_kern();
  if (type == PL_F32)
    memcpy(dst, x, (size_t)n * 4);
  else if (type == PL_F16)
    k->store_f16(x, n, dst);
  else if (type == PL_BF16)
    k->store_bf16(x, n, dst);
  else
    k->enc[type](x, w, cols, n, dst);
}

/* Importances [cols] as encoders take them: in (0, 1]. NULL if there is none that is positive, when all count alike;
 * *rc becomes an error if one is negative or not a number, or memory is out. */
static float *scaled_weights(const float *weights, int64_t cols, int32_t *rc) {
  float top = 0;
  for (int64_t i = 0; i < cols; i++) {
    if (!(weights[i] >= 0 && weights[i] <= 3.4e38f)) {
      *rc = PL_E_ARG;
      return NULL;
    }
    if (weights[i] > top) top = weights[i];
  }
  if (top == 0) return NULL;
  float *w = malloc((size_t)cols * sizeof *w);
  if (!w) {
    *rc = PL_E_MEM;
    return NULL;
  }
  for (int64_t i = 0; i < cols; i++) {
    w[i] = weights[i] / top;
    if (w[i] < LEAST_WEIGHT) w[i] = LEAST_WEIGHT;
  }
  return w;
}

typedef struct job {
  int32_t type, src_type;
  const uint8_t *src;
  uint8_t *dst;
  const float *w;
  int64_t rows, cols, step; /* step: rows taken at a time */
  atomic_llong next;
  atomic_int rc; /* the least, so that it does not depend on which thread was first */
} job;

static void report(job *j, int rc) {
  int seen = atomic_load(&j->rc);
  while (rc < seen && !atomic_compare_exchange_weak(&j->rc, &seen, rc)) {
  }
}

static void quantize_some(void *ctx, int tid, int n_threads) {
  job *j = ctx;
  int64_t from = pl_row_bytes(j->src_type, j->cols), to = pl_row_bytes(j->type, j->cols), first;
  float beyond = limit(j->type), *wide = NULL;
  if (j->src_type != PL_F32 && !(wide = malloc((size_t)(j->step * j->cols) * sizeof *wide))) {
    report(j, PL_E_MEM);
    return;
  }
  while ((first = atomic_fetch_add(&j->next, j->step)) < j->rows) {
    int64_t n = (j->rows - first < j->step ? j->rows - first : j->step) * j->cols;
    const float *x = (const void *)(j->src + first * from);
    if (wide) {
      pl_kern()->deq[j->src_type](x, wide, n);
      x = wide;
    }
    int32_t rc = check(x, n, beyond);
    if (rc)
      report(j, rc);
    else
      encode(j->type, x, j->w, j->cols, n, j->dst + first * to);
  }
  free(wide);
}

/* On the pool, or (NULL) on this thread alone. */
static int32_t quantize(pl_pool *pool, int32_t type, int32_t src_type, const void *src, int64_t rows, int64_t cols,
                        const float *weights, void *dst) {
  if (!can_encode(type) || !known(src_type) || !pl_kern()->deq[src_type]) return PL_E_TYPE;
  if (!src || !dst || rows < 0 || cols < 1 || cols % pl_type_block(type) || cols % pl_type_block(src_type))
    return PL_E_ARG;
  int32_t rc = 0;
  float *w = weights ? scaled_weights(weights, cols, &rc) : NULL;
  if (rc) return rc;
  job j = {.type = type, .src_type = src_type, .src = src, .dst = dst, .w = w, .rows = rows, .cols = cols};
  j.step = CHUNK / cols + 1;
  atomic_init(&j.next, 0);
  atomic_init(&j.rc, 0);
  if (pool)
    pl_pool_run(pool, quantize_some, &j);
  else
    quantize_some(&j, 0, 1);
  free(w);
  return atomic_load(&j.rc);
}

int32_t pl_quantize(int32_t type, const float *x, int64_t rows, int64_t cols, const float *weights, void *dst) {
  return quantize(NULL, type, PL_F32, x, rows, cols, weights, dst);
}

int32_t pl_pool_quantize(pl_pool *pool, int32_t type, int32_t src_type, const void *src, int64_t rows,
                         int64_t cols, const float *weights, void *dst) {
  return pool ? quantize(pool, type, src_type, src, rows, cols, weights, dst) : PL_E_ARG;
}
