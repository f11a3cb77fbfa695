/* checkpool: the thread pool under load. Threads hand plain (not atomic) memory to each other through nothing but
 * pl_pool_run and pl_pool_barrier, so a barrier that lets a thread through early shows as a wrong sum, and one
 * that orders memory too weakly shows as a data race when this is built with ThreadSanitizer.
 *
 *   checkpool [--rounds N] [--break]
 *
 * --break leaves the barriers out: the run must then fail, which shows that the check can. Exit status 0: all sums
 * right; 1: a wrong one; 2: usage. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "base/thread.h"

#if defined(_WIN32)
static void nap(void) { Sleep(1); }
#else
#include <time.h>
static void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL); }
#endif

enum { MAX_THREADS = 8, PHASES = 12, CALLERS = 3 };

static int break_barrier;

typedef struct job {
  uint64_t cell[2][MAX_THREADS]; /* two phases deep: one barrier separates the writes of a phase from its reads */
  uint64_t wrong[MAX_THREADS];
  uint64_t round;
  int n_threads, napper;
  pl_pool *pool;
} job;

static uint64_t value(uint64_t round, int phase, int tid) {
  return (round * 31 + (uint64_t)phase + 1) * 0x9E3779B97F4A7C15u ^ (uint64_t)tid * 0xBF58476D1CE4E5B9u;
}

static void work(void *ctx, int tid, int n_threads) {
  job *j = ctx;
  if (n_threads != j->n_threads) j->wrong[tid]++;
  for (int phase = 0; phase < PHASES; phase++) {
    uint64_t *cell = j->cell[phase & 1], want = 0, got = 0;
    if (tid == j->napper && phase % 5 == 3) nap(); /* long enough that the others stop spinning and sleep */
    cell[tid] = value(j->round, phase, tid);
    if (!break_barrier) pl_pool_barrier(j->pool);
    for (int t = 0; t < n_threads; t++) got += cell[t], want += value(j->round, phase, t);
    j->wrong[tid] += got != want;
  }
}

/* Wrong sums in so many rounds on a pool of n threads; -1 when no pool can be made. */
static int64_t hammer(int n, int rounds) {
  job j = {.n_threads = n, .pool = pl_pool_new(n)};
  if (!j.pool) return -1;
  int64_t wrong = pl_pool_threads(j.pool) != n;
  for (int r = 0; r < rounds; r++) {
    j.round = (uint64_t)r;
    j.napper = r % MAX_THREADS;
    if (r % 16 == 15) nap(); /* now the workers sleep when the next round wakes them */
    pl_pool_run(j.pool, work, &j);
    for (int t = 0; t < n; t++) { /* what every thread wrote last is here when run returns */
      wrong += (int64_t)j.wrong[t] + (j.cell[(PHASES - 1) & 1][t] != value(j.round, PHASES - 1, t));
      j.wrong[t] = 0;
    }
  }
  pl_pool_free(j.pool);
  return wrong;
}

typedef struct caller {
  pl_thread thread;
  int n, rounds;
  int64_t wrong;
} caller;

PL_THREAD_FN(call, arg) {
  caller *c = arg;
  c->wrong = hammer(c->n, c->rounds);
  return 0;
}

static int report(const char *what, int n, int64_t wrong) {
  printf("%s %d: %s", what, n, wrong ? "FAILED" : "ok");
  if (wrong > 0) printf(", %lld wrong", (long long)wrong);
  if (wrong < 0) printf(", no pool");
  puts("");
  return wrong != 0;
}

int main(int argc, char **argv) {
  int rounds = 2000, failed = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--break")) {
      break_barrier = 1;
    } else if (!strcmp(argv[i], "--rounds") && i + 1 < argc && atoi(argv[i + 1]) > 0) {
      rounds = atoi(argv[++i]);
    } else {
      fprintf(stderr, "usage: checkpool [--rounds N] [--break]\n");
      return 2;
    }
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (int n = 1; n <= MAX_THREADS; n++) failed += report("threads", n, hammer(n, rounds));

  caller callers[CALLERS]; /* several pools at once, as several models in a process have them */
  for (int i = 0; i < CALLERS; i++) {
    callers[i] = (caller){.n = 2 + i, .rounds = rounds / 4 + 1};
    if (pl_thread_start(&callers[i].thread, call, &callers[i])) return report("callers", i, -1);
  }
  for (int i = 0; i < CALLERS; i++) {
    pl_thread_join(callers[i].thread);
    failed += report("pool at the same time as others, threads", callers[i].n, callers[i].wrong);
  }

  int64_t wrong = 0; /* pools that live briefly, some without ever running */
  for (int i = 0; i < 50 && !wrong; i++) wrong = hammer(1 + i % MAX_THREADS, i % 3);
  failed += report("short lives", 50, wrong);
  printf("%s\n", failed ? "FAILED" : "passed");
  return failed != 0;
}
