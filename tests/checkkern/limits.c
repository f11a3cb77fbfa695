/* limits.c: what this machine can do at best, the yardstick of the benchmarks: reading memory, 8-bit dot products and
 * float multiply-adds, by one thread or several at once. Each loop does nothing else, in code as good as
 * hand-written; operations count a multiplication and an addition as two. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/pool.h"
#include "check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { READ_BYTES = 256 << 20, MOST_BYTES = 1 << 30, LOOPS = 1 << 22, CHAINS = 12, MAX_THREADS = 256 };

static double cpu_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* 64-byte lines are touched once each; the prefetchers fetch them whole. */
static uint64_t read_memory(const uint64_t *p, size_t bytes) {
  uint64_t a = 0, b = 0, c = 0, d = 0;
  for (size_t i = 0; i < bytes / 8; i += 32) {
    a += p[i];
    b += p[i + 8];
    c += p[i + 16];
    d += p[i + 24];
    __builtin_prefetch(p + i + 1024);
    __builtin_prefetch(p + i + 1032);
    __builtin_prefetch(p + i + 1040);
    __builtin_prefetch(p + i + 1048);
  }
  return a + b + c + d;
}

/* step(v) on each of twelve independent values per loop, kept so that nothing is dropped. Returns seconds. */
#define EACH(f) f(v0) f(v1) f(v2) f(v3) f(v4) f(v5) f(v6) f(v7) f(v8) f(v9) f(va) f(vb)
#define PEAK(name, attributes, reg, type, init, step)                                                         \
  __attribute__((noinline)) attributes static double name(void) {                                             \
    type v0 = init, v1 = v0, v2 = v0, v3 = v0, v4 = v0, v5 = v0, v6 = v0, v7 = v0, v8 = v0, v9 = v0, va = v0, \
         vb = v0;                                                                                             \
    double start = cpu_seconds();                                                                             \
    for (int64_t n = 0; n < LOOPS; n++) {                                                                     \
      EACH(step)                                                                                              \
      __asm__ volatile("" : reg(v0), reg(v1), reg(v2), reg(v3), reg(v4), reg(v5));                            \
      __asm__ volatile("" : reg(v6), reg(v7), reg(v8), reg(v9), reg(va), reg(vb));                            \
    }                                                                                                         \
    return cpu_seconds() - start;                                                                             \
  }

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
/* as the kernels for 4-bit codes do it: many products of bytes are added in int16 for one widening */
#define INT8_AVX2(v) v = _mm256_add_epi16(v, _mm256_maddubs_epi16(v, _mm256_set1_epi8(1)));
#define FLOAT_AVX2(v) v = _mm256_fmadd_ps(v, v, v);
#define INT8_AVX512(v) v = _mm512_dpbusd_epi32(v, _mm512_set1_epi8(1), _mm512_set1_epi8(2));
#define FLOAT_AVX512(v) v = _mm512_fmadd_ps(v, v, v);
PEAK(int8_avx2, AVX2, "+x", __m256i, _mm256_set1_epi8(1), INT8_AVX2)
PEAK(float_avx2, AVX2, "+x", __m256, _mm256_set1_ps(0.5f), FLOAT_AVX2)
#if defined(PL_HAVE_AVXVNNI)
#define AVXVNNI __attribute__((target("avx2,fma,avxvnni")))
#define INT8_AVXVNNI(v) v = _mm256_dpbusd_avx_epi32(v, _mm256_set1_epi8(1), _mm256_set1_epi8(2));
PEAK(int8_avxvnni, AVXVNNI, "+x", __m256i, _mm256_set1_epi8(1), INT8_AVXVNNI)
#endif
PEAK(int8_avx512, AVX512, "+v", __m512i, _mm512_set1_epi8(1), INT8_AVX512)
PEAK(float_avx512, AVX512, "+v", __m512, _mm512_set1_ps(0.5f), FLOAT_AVX512)
#elif defined(__aarch64__)
#include <arm_neon.h>
#define INT8_NEON(v) v = vmlal_s8(v, vdup_n_s8(1), vdup_n_s8(2));
#define FLOAT_NEON(v) v = vfmaq_f32(v, v, v);
PEAK(int8_neon, , "+w", int16x8_t, vdupq_n_s16(1), INT8_NEON)
PEAK(float_neon, , "+w", float32x4_t, vdupq_n_f32(0.5f), FLOAT_NEON)
#endif

static void print_limit(int json, int *first, const char *name, double value) {
  if (json)
    printf("%s\"%s\": %.2f", *first ? "" : ", ", name, value);
  else
    printf("%-24s %9.1f\n", name, value);
  *first = 0;
}

static uint64_t *memory;
static size_t slice; /* bytes that each thread reads */
static volatile uint64_t sink;

typedef struct job {
  double (*run)(void); /* NULL: read this thread's slice of memory */
  pl_pool *pool;
  double seconds[MAX_THREADS];
} job;

static double read_slice(int tid) {
  double start = cpu_seconds();
  sink = read_memory(memory + (size_t)tid * slice / 8, slice);
  return cpu_seconds() - start;
}

static void work(void *ctx, int tid, int n_threads) {
  job *j = ctx;
  (void)n_threads;
  pl_pool_barrier(j->pool);
  j->seconds[tid] = j->run ? j->run() : read_slice(tid);
}

/* The best of several runs by all threads at once: 10^9 units per second, where each thread does `amount`. */
static double best(pl_pool *pool, double (*run)(void), double amount) {
  double most = 0;
  job j = {run, pool, {0}};
  for (int i = 0; i < 5; i++) {
    double total = 0;
    pl_pool_run(pool, work, &j);
    for (int t = 0; t < pl_pool_threads(pool); t++) total += amount / j.seconds[t] * 1e-9;
    if (total > most) most = total;
  }
  return most;
}

void limits(int json, int n_threads) {
  int first = 1;
  for (slice = READ_BYTES; slice * (size_t)n_threads > MOST_BYTES;) slice /= 2;
  size_t bytes = slice * (size_t)n_threads;
  memory = pl_mem_alloc((int64_t)bytes, 1);
  pl_pool *pool = pl_pool_new(n_threads);
  if (!memory || !pool) exit(2);
  memset(memory, 1, bytes);
  if (json) printf("{");
  print_limit(json, &first, "read_gb_per_s", best(pool, NULL, (double)slice));
#if defined(__x86_64__)
  if (pl_cpu_has(PL_LEVEL_avx2)) {
    print_limit(json, &first, "int8_gop_per_s_avx2", best(pool, int8_avx2, 2.0 * 32 * CHAINS * LOOPS));
    print_limit(json, &first, "float_gop_per_s_avx2", best(pool, float_avx2, 2.0 * 8 * CHAINS * LOOPS));
  }
#if defined(PL_HAVE_AVXVNNI)
  if (pl_cpu_has(PL_LEVEL_avxvnni))
    print_limit(json, &first, "int8_gop_per_s_avxvnni", best(pool, int8_avxvnni, 2.0 * 32 * CHAINS * LOOPS));
#endif
  if (pl_cpu_has(PL_LEVEL_avx512)) {
    print_limit(json, &first, "int8_gop_per_s_avx512", best(pool, int8_avx512, 2.0 * 64 * CHAINS * LOOPS));
    print_limit(json, &first, "float_gop_per_s_avx512", best(pool, float_avx512, 2.0 * 16 * CHAINS * LOOPS));
  }
#elif defined(__aarch64__)
  print_limit(json, &first, "int8_gop_per_s_neon", best(pool, int8_neon, 2.0 * 8 * CHAINS * LOOPS));
  print_limit(json, &first, "float_gop_per_s_neon", best(pool, float_neon, 2.0 * 4 * CHAINS * LOOPS));
#endif
  if (json) puts("}");
  pl_pool_free(pool);
  pl_mem_free(memory, (int64_t)bytes);
}
