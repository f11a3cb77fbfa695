/* checkkern: every kernel of kern.inc, at every level this CPU has, against the reference kernels, bit for bit;
 * and the reference kernels against double precision. Exit status 0: all passed, 1: some failed, 2: bad usage. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "run.h"

#define PL_K(op, type, level) extern pl_##op##_fn pl_##op##_##type##_##level;
#define PL_K1(op, level) extern pl_##op##_fn pl_##op##_##level;
#include "kern/kern.inc"
#undef PL_K
#undef PL_K1

static const entry entries[] = {
#define PL_K(op, type, level) \
  {#op, #type, #level, PL_LEVEL_##level, PL_##type, (any_fn *)pl_##op##_##type##_##level},
#define PL_K1(op, level) {#op, "", #level, PL_LEVEL_##level, -1, (any_fn *)pl_##op##_##level},
#include "kern/kern.inc"
#undef PL_K
#undef PL_K1
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };

static const struct {
  const char *op;
  void (*check)(const entry *);
} checks[] = {
#define CHECK(op) {#op, check_##op}
    CHECK(deq),   CHECK(enc),     CHECK(mm),      CHECK(mm2),      CHECK(pack),      CHECK(panel_bytes),
    CHECK(quant), CHECK(rmsnorm), CHECK(silu),    CHECK(gelu),     CHECK(softcap),   CHECK(softmax),
    CHECK(rope),  CHECK(qk),      CHECK(av),      CHECK(load_f16), CHECK(store_f16), CHECK(store_bf16),
    CHECK(merge), CHECK(rotate),  CHECK(quant16), CHECK(code8),    CHECK(code4),
#undef CHECK
};

static sigjmp_buf escape;
static volatile sig_atomic_t running;
static char message[512];

void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  siglongjmp(escape, 1);
}

static void on_signal(int sig) {
  if (!running) {
    signal(sig, SIG_DFL);
    raise(sig);
    return;
  }
  const char *name = sig == SIGILL ? "SIGILL" : sig == SIGFPE ? "SIGFPE" : sig == SIGBUS ? "SIGBUS" : "SIGSEGV";
  snprintf(message, sizeof message, "%s", name);
  siglongjmp(escape, 1);
}

static void catch_signals(void) {
  struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_NODEFER};
  const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
  for (size_t i = 0; i < sizeof sigs / sizeof *sigs; i++) sigaction(sigs[i], &act, NULL);
}

/* 1 if all checks of this kernel pass; otherwise message says why. */
static int check_one(const entry *e, uint64_t seed) {
  rnd_seed(seed, full_name(e));
  message[0] = 0;
  running = 1;
  if (sigsetjmp(escape, 1)) {
    running = 0;
    return 0;
  }
  int found = 0;
  for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
    if (!strcmp(checks[i].op, e->op)) {
      for (int end = 1; end >= 0; end--) {
        buffers_at_end(end);
        checks[i].check(e);
      }
      found = 1;
    }
  if (!found) fail("checkkern has no check for op %s", e->op);
  running = 0;
  return 1;
}

static const char usage[] =
    "usage: checkkern [--level NAME] [--seed N] [--bench] [--limits] [--threads N] [--json] [--list] [-v] "
    "[--break HOW] [SUBSTRING]\n"
    "  --level NAME  only the kernels of this level\n"
    "  --seed N      of the random data (default: the time)\n"
    "  --bench       time the kernels instead of checking them\n"
    "  --limits      measure what this machine can do at best\n"
    "  --threads N   by so many threads together, at most 256 (default: 1)\n"
    "  --json        print results as JSON\n"
    "  --list        print the names of the kernels that would run\n"
    "  -v            also name the kernels that pass\n"
    "  --break HOW   spoil every result, so that everything must fail: ulp (lowest bit of one float;\n"
    "                reference kernels may pass), bit (of its exponent), read, write, trap\n"
    "  SUBSTRING     only kernels whose name contains it\n";

int main(int argc, char **argv) {
  const char *level = NULL, *filter = "", *how = NULL;
  uint64_t seed = (uint64_t)time(NULL);
  int timing = 0, limit = 0, n_threads = 1, json = 0, list = 0, verbose = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--level") && i + 1 < argc)
      level = argv[++i];
    else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
      seed = strtoull(argv[++i], NULL, 0);
    else if (!strcmp(argv[i], "--break") && i + 1 < argc)
      how = argv[++i];
    else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
      n_threads = atoi(argv[++i]);
    else if (!strcmp(argv[i], "--bench"))
      timing = 1;
    else if (!strcmp(argv[i], "--limits"))
      limit = 1;
    else if (!strcmp(argv[i], "--json"))
      json = 1;
    else if (!strcmp(argv[i], "--list"))
      list = 1;
    else if (!strcmp(argv[i], "-v"))
      verbose = 1;
    else if (argv[i][0] != '-')
      filter = argv[i];
    else {
      fputs(usage, stderr);
      return 2;
    }
  }
  if (n_threads < 1 || n_threads > 256) {
    fputs(usage, stderr);
    return 2;
  }
  if (limit) {
    limits(json, n_threads);
    return 0;
  }
  int known = !level;
  for (int l = 0; l < pl_cpu_levels(); l++) known |= level && !strcmp(level, pl_cpu_level_name(l));
  if (!known) {
    fprintf(stderr, "checkkern: no level %s\n", level);
    return 2;
  }
  buffers_init();
  catch_signals();
  break_with(how);
  if (!timing && !list) {
    if (json)
      printf("{\"seed\": %llu, \"results\": [", (unsigned long long)seed);
    else
      printf("checkkern: best level %s, seed %llu\n", pl_cpu_level_name(pl_cpu_best()), (unsigned long long)seed);
  }
  if (timing && json) printf("[");
  int passed = 0, failed = 0, first = 1;
  for (int i = 0; i < N_ENTRIES; i++) {
    const entry *e = &entries[i];
    if (!pl_cpu_has(e->level_id) || (level && strcmp(e->level, level)) || !strstr(full_name(e), filter)) continue;
    if (list) {
      puts(full_name(e));
      continue;
    }
    if (timing) {
      bench(e, json, &first);
      continue;
    }
    int ok = check_one(e, seed);
    ok ? passed++ : failed++;
    if (json)
      printf("%s\n{\"kernel\": \"%s\", \"ok\": %s, \"message\": \"%s\"}", first ? "" : ",", full_name(e),
             ok ? "true" : "false", message);
    else if (!ok)
      printf("%s: FAILED: %s\n", full_name(e), message);
    else if (verbose)
      printf("%s: ok\n", full_name(e));
    first = 0;
    fflush(stdout);
  }
  if (list) return 0;
  if (timing) {
    if (json) puts("]");
    return 0;
  }
  if (json)
    printf("],\n\"passed\": %d, \"failed\": %d}\n", passed, failed);
  else
    printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}
