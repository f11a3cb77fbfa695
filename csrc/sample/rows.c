/* rows.c: the next tokens of many sequences, drawn on the threads of the pool. */
#include "base/pool.h"

enum { FEW = 4 }; /* rows for which it does not pay to wake other threads */

typedef struct job {
  pl_sampler *const *sampler; /* [n] */
  const float *logits;        /* [n][cols] */
  int64_t cols;
  int32_t n;
  int32_t *token; /* [n] */
} job;

static void draw(void *ctx, int tid, int n_threads) {
  const job *j = ctx;
  for (int32_t i = tid; i < j->n; i += n_threads) {
    if (!j->sampler[i]) continue;
    int32_t id = pl_sampler_sample(j->sampler[i], j->logits + i * j->cols);
    int32_t error = id < 0 ? id : pl_sampler_accept(j->sampler[i], &id, 1);
    j->token[i] = error < 0 ? error : id;
  }
}

void pl_sample_rows(pl_pool *pool, pl_sampler *const *sampler, const float *logits, int64_t cols, int32_t n,
                    int32_t *token) {
  job j = {sampler, logits, cols, n, token};
  if (n < FEW)
    draw(&j, 0, 1);
  else
    pl_pool_run(pool, draw, &j);
}
