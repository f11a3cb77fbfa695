/* bench.c: how fast a kernel is. Time stamps count at a constant rate; best of several runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "quant/types.h"

static uint64_t ticks(void) {
#if defined(__x86_64__)
  uint32_t lo, hi;
  __asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
  return (uint64_t)hi << 32 | lo;
#elif defined(__aarch64__)
  uint64_t t;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
  return t;
#else
  return 0;
#endif
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* One result: calls, bytes and operations are per run. */
static void report_as(const char *name, int json, int *first, int nt, double calls, double bytes, double ops,
                      double s, double t) {
  const char *size = nt ? text("%d", nt) : "null";
  if (json)
    printf(
        "%s\n{\"kernel\": \"%s\", \"nt\": %s, \"cycles_per_call\": %.1f, \"gb_per_s\": %.2f, \"gop_per_s\": %.2f}",
        *first ? "" : ",", name, size, t / calls, bytes / s * 1e-9, ops / s * 1e-9);
  else
    printf("%-22s %4s %12.1f cycles/call %8.2f GB/s %8.1f GOP/s\n", name, nt ? size : "", t / calls,
           bytes / s * 1e-9, ops / s * 1e-9);
  *first = 0;
  fflush(stdout);
}

static void report(const entry *e, int json, int *first, int nt, double calls, double bytes, double ops, double s,
                   double t) {
  report_as(full_name(e), json, first, nt, calls, bytes, ops, s, t);
}

/* Seconds and ticks of one run of work: repeated often enough that reading the clock costs nothing, the best of
 * five. */
#define MEASURE(s, t, work)                                          \
  do {                                                               \
    int64_t n_ = 1;                                                  \
    (s) = (t) = 1e30;                                                \
    for (int try_ = 0; try_ < 5;) {                                  \
      double start_ = seconds();                                     \
      uint64_t begin_ = ticks();                                     \
      for (int64_t i_ = 0; i_ < n_; i_++) work;                      \
      double cycles_ = (double)(ticks() - begin_);                   \
      double used_ = seconds() - start_;                             \
      if (used_ < 0.02) {                                            \
        n_ = used_ < 0.002 ? n_ * 8 : n_ * 2;                        \
        continue;                                                    \
      }                                                              \
      (s) = used_ / (double)n_ < (s) ? used_ / (double)n_ : (s);     \
      (t) = cycles_ / (double)n_ < (t) ? cycles_ / (double)n_ : (t); \
      try_++;                                                        \
    }                                                                \
  } while (0)

static void *room(size_t bytes) {
  void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!p) exit(2);
  memset(p, 0, bytes);
  return p;
}

/* Weights beyond the caches at one token, where memory is the limit; 1 MB of them at more, where arithmetic is. */
static void bench_mm(const entry *e, int json, int *first) {
  const int64_t k = 2048;
  const int tokens[] = {1, 2, 3, 4, 8, 64};
  int32_t in_order[64];
  for (int32_t t = 0; t < 64; t++) in_order[t] = t;
  const pl_kern_table *table = pl_kern_at(e->level_id);
  int q8 = is_q8_type(e->type_id);
  int64_t row = pl_row_bytes(e->type_id, k), stride = q8 ? k / 32 * (int64_t)sizeof(pl_q8) : k * 4;
  int64_t panel = table->pack[e->type_id] ? table->panel_bytes[e->type_id](k) : PL_PANEL * row;
  int64_t large = (e->level_id == PL_LEVEL_ref ? 4 << 20 : 192 << 20) / panel, small = (1 << 20) / panel + 1;
  uint8_t *rows = room((size_t)(PL_PANEL * row)), *w = room((size_t)(large * panel)),
          *a = room((size_t)(64 * stride));
  float *y = room(64 * PL_PANEL * 4);
  fill_rows(e->type_id, rows, row, PL_PANEL, k, NORMAL, 0);
  fill_acts(q8, a, stride, 64, k, NORMAL, 0);
  if (table->pack[e->type_id])
    table->pack[e->type_id](rows, row, PL_PANEL, k, w);
  else
    memcpy(w, rows, (size_t)panel);
  for (int64_t i = 1; i < large; i++) memcpy(w + i * panel, w, (size_t)panel);
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    int nt = tokens[i];
    int64_t n = nt <= 4 ? large : small;
    if (e->level_id == PL_LEVEL_ref && nt > 1) n = 4;
    double s, t;
    MEASURE(s, t,
            for (int64_t j = 0; j < n;
                 j++)((pl_mm_fn *)e->fn)(w + j * panel, row, PL_PANEL, k, a, stride, nt, in_order, y));
    report(e, json, first, nt, (double)n, (double)(n * panel), 2.0 * (double)(n * PL_PANEL * k * nt), s, t);
  }
  free(rows), free(w), free(a), free(y);
}

/* A chunk of keys of 128 values, for the rows of one decoding token, and of a prompt's tile. */
static void bench_attn(const entry *e, int json, int *first) {
  const int hd = 128, rows[] = {1, 4, 8, 64};
  const int64_t kv = (int64_t)hd * PL_CHUNK * (e->type_id == PL_F32 ? 4 : e->type_id == PL_Q8_0 ? 1 : 2);
  float *q = room(64 * hd * 8), *s = room(64 * PL_CHUNK * 4), *o = room((size_t)(64 * hd * 4));
  uint8_t *blocks = room((size_t)kv * 2);
  const void *at[PL_CHUNK / PL_PAGE];
  for (int b = 0; b < PL_CHUNK / PL_PAGE; b++) at[b] = blocks + b * kv / (PL_CHUNK / PL_PAGE);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    int nq = rows[i];
    double t, ticks_used;
    if (e->op[0] == 'q')
      MEASURE(t, ticks_used, ((pl_qk_fn *)e->fn)(q, nq, at, PL_CHUNK / PL_PAGE, hd, 0.125f, s, at));
    else
      MEASURE(t, ticks_used, ((pl_av_fn *)e->fn)(s, nq, at, 0, PL_CHUNK, hd, o, at));
    report(e, json, first, nq, 1, (double)(e->type_id == PL_Q4_0 ? kv / 4 : kv), 2.0 * hd * PL_CHUNK * nq, t,
           ticks_used);
  }
  free(q), free(s), free(o), free(blocks);
}

/* Two panels at once, from the second level cache. */
static void bench_mm2(const entry *e, int json, int *first) {
  const int64_t k = 2048, row = pl_row_bytes(e->type_id, k), stride = k / 32 * (int64_t)sizeof(pl_q8);
  const int tokens[] = {8, 16, 64};
  const pl_kern_table *table = pl_kern_at(e->level_id);
  const int64_t panel = table->panel_bytes[e->type_id](k), n = (1 << 19) / panel + 1;
  int32_t in_order[64];
  for (int32_t t = 0; t < 64; t++) in_order[t] = t;
  uint8_t *rows = room((size_t)(PL_PANEL * row)), *w = room((size_t)(2 * n * panel)),
          *a = room((size_t)(64 * stride));
  float *y = room(64 * 2 * PL_PANEL * 4);
  fill_rows(e->type_id, rows, row, PL_PANEL, k, NORMAL, 0);
  fill_acts(1, a, stride, 64, k, NORMAL, 0);
  for (int64_t i = 0; i < 2 * n; i++) table->pack[e->type_id](rows, row, PL_PANEL, k, w + i * panel);
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
    int nt = tokens[i];
    double s, t;
    MEASURE(s, t,
            for (int64_t j = 0; j < n;
                 j++)((pl_mm2_fn *)e->fn)(w + 2 * j * panel, panel, k, a, stride, nt, in_order, y));
    report(e, json, first, nt, (double)n, (double)(2 * n * panel), 4.0 * (double)(n * PL_PANEL * k * nt), s, t);
  }
  /* second terms: block by block, each time for other tokens */
  enum { LISTED = 24 };
  const int64_t block = pl_type_block(e->type_id), n_blocks = k / block, part = panel / n_blocks;
  int32_t some[2][LISTED];
  for (int32_t t = 0; t < LISTED; t++) some[0][t] = 2 * t, some[1][t] = 2 * t + 1;
  double s, t;
  MEASURE(s, t,
          for (int64_t j = 0; j < n * n_blocks;
               j++)((pl_mm2_fn *)e->fn)(w + j / n_blocks * 2 * panel + j % n_blocks * part, panel, block, a,
                                        block / 32 * (int64_t)sizeof(pl_q8), LISTED, some[j % 2], y));
  report_as(text("%s/block", full_name(e)), json, first, LISTED, (double)(n * n_blocks), (double)(2 * n * panel),
            4.0 * (double)(n * PL_PANEL * k * LISTED), s, t);
  free(rows), free(w), free(a), free(y);
}

void bench(const entry *e, int json, int *first) {
  const int n = 4096;
  float *x = room(n * 64), *y = room(n * 64);
  for (int i = 0; i < n * 16; i++) x[i] = rnd_float(NORMAL), y[i] = rnd_float(NORMAL);
  pl_q8 *q = room(n / 32 * sizeof(pl_q8)), *lo = room(n / 32 * sizeof(pl_q8));
  double s, t;
  if (!strcmp(e->op, "mm")) bench_mm(e, json, first);
  if (!strcmp(e->op, "mm2")) bench_mm2(e, json, first);
  if (!strcmp(e->op, "deq") || !strcmp(e->op, "pack")) {
    const int64_t row = pl_row_bytes(e->type_id, 2048);
    uint8_t *w = room((size_t)(PL_PANEL * row)), *panel = room((size_t)(PL_PANEL * row * 2));
    fill_rows(e->type_id, w, row, PL_PANEL, 2048, NORMAL, 0);
    if (e->op[0] == 'd')
      MEASURE(s, t, ((pl_deq_fn *)e->fn)(w, x, 2048));
    else
      MEASURE(s, t, ((pl_pack_fn *)e->fn)(w, row, PL_PANEL, 2048, panel));
    report(e, json, first, 0, 1, (double)row * (e->op[0] == 'd' ? 1 : PL_PANEL), 0, s, t);
    free(w), free(panel);
  }
  if (!strcmp(e->op, "enc")) {
    MEASURE(s, t, ((pl_enc_fn *)e->fn)(x, NULL, n, n, y));
    report(e, json, first, 0, 1, n * 4.0, 0, s, t);
  }
  if (!strcmp(e->op, "quant"))
    for (int terms = 1; terms <= 2; terms++) {
      MEASURE(s, t, ((pl_quant_fn *)e->fn)(x, n, q, terms == 2 ? lo : NULL));
      report(e, json, first, terms, 1, n * 4.0, n * 2.0 * terms, s, t);
    }
  if (!strcmp(e->op, "rmsnorm")) {
    MEASURE(s, t, ((pl_rmsnorm_fn *)e->fn)(x, x, n, 1e-5f, y));
    report(e, json, first, 0, 1, n * 4.0, n * 4.0, s, t);
  }
  if (!strcmp(e->op, "gelu")) {
    MEASURE(s, t, ((pl_gelu_fn *)e->fn)(x, x, n, y));
    report(e, json, first, 0, 1, n * 4.0, n * 4.0, s, t);
  }
  if (!strcmp(e->op, "softcap")) {
    MEASURE(s, t, ((pl_softcap_fn *)e->fn)(y, n, 30.0f));
    report(e, json, first, 0, 1, n * 4.0, n * 4.0, s, t);
  }
  if (!strcmp(e->op, "silu")) {
    MEASURE(s, t, ((pl_silu_fn *)e->fn)(x, x, n, y));
    report(e, json, first, 0, 1, n * 4.0, n * 4.0, s, t);
  }
  if (!strcmp(e->op, "rope"))
    for (int inter = 0; inter < 2; inter++) {
      MEASURE(s, t, ((pl_rope_fn *)e->fn)(y, n / 128, 128, 128, inter, x));
      report(e, json, first, 0, 1, n * 4.0, n * 3.0, s, t);
    }
  if (!strcmp(e->op, "qk") || !strcmp(e->op, "av")) bench_attn(e, json, first);
  if (!strcmp(e->op, "softmax")) {
    MEASURE(s, t, {
      float m = 0;
      memcpy(y, x, 256 * 4);
      y[0] = ((pl_softmax_fn *)e->fn)(y, 256, &m);
    });
    report(e, json, first, 0, 1, 256 * 4.0, 256 * 2.0, s, t);
  }
  if (!strcmp(e->op, "merge")) {
    MEASURE(s, t, ((pl_merge_fn *)e->fn)(8, 128, x, x + 8, x + 64, y, y + 8, y + 64));
    report(e, json, first, 8, 1, 2 * 8 * 128 * 4.0, 3.0 * 8 * 128, s, t);
  }
  if (!strcmp(e->op, "rotate")) {
    MEASURE(s, t, ((pl_rotate_fn *)e->fn)(y, 128, 128));
    report(e, json, first, 0, 1, 128 * 4.0, 7 * 128.0, s, t);
  }
  if (!strcmp(e->op, "quant16")) {
    MEASURE(s, t, ((pl_quant16_fn *)e->fn)(x, 128, (pl_q16 *)(void *)y));
    report(e, json, first, 0, 1, 128 * 4.0, 2 * 128.0, s, t);
  }
  if (!strcmp(e->op, "code8")) {
    MEASURE(s, t, ((pl_code8_fn *)e->fn)(x, 128, (int8_t *)y, (uint16_t *)(void *)(y + n)));
    report(e, json, first, 0, 1, 128 * 4.0, 2 * 128.0, s, t);
  }
  if (!strcmp(e->op, "code4")) {
    MEASURE(s, t, ((pl_code4_fn *)e->fn)(x, 128, (uint8_t *)y, (uint16_t *)(void *)(y + n)));
    report(e, json, first, 0, 1, 128 * 4.0, 8 * 4 * 128.0, s, t);
  }
  if (!strcmp(e->op, "load_f16")) {
    MEASURE(s, t, ((pl_load_f16_fn *)e->fn)((const uint16_t *)(const void *)x, n, y));
    report(e, json, first, 0, 1, n * 2.0, n, s, t);
  }
  if (!strcmp(e->op, "store_bf16")) {
    MEASURE(s, t, ((pl_store_bf16_fn *)e->fn)(x, n, (uint16_t *)(void *)y));
    report(e, json, first, 0, 1, n * 4.0, n, s, t);
  }
  if (!strcmp(e->op, "store_f16")) {
    MEASURE(s, t, ((pl_store_f16_fn *)e->fn)(x, n, (uint16_t *)(void *)y));
    report(e, json, first, 0, 1, n * 4.0, n, s, t);
  }
  free(x), free(y), free(q), free(lo);
}
