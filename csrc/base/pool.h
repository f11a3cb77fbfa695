/* pool.h: a fixed team of threads that runs one function together, and a barrier inside it.
 * Waiting spins briefly, then sleeps: a step is many short phases, but an oversubscribed machine must not burn its
 * cores in spinning. */
#ifndef PL_POOL_H
#define PL_POOL_H
#include <stdint.h>

#include "pyllm.h"

typedef void pl_pool_fn(void *ctx, int tid, int n_threads);

int pl_pool_threads(const pl_pool *pool);
/* Runs fn(ctx, tid, n) on every thread, tid 0 on the caller's; returns when all are done. One caller at a time. */
void pl_pool_run(pl_pool *pool, pl_pool_fn *fn, void *ctx);
/* To be called by all threads inside fn. */
void pl_pool_barrier(pl_pool *pool);

#endif
