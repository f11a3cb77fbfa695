#include "base/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "kern/kern.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

static uint64_t xgetbv0(void) {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

int pl_cpu_detect(void) {
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return PL_LEVEL_ref;
  int osxsave = c >> 27 & 1, avx = c >> 28 & 1, fma = c >> 12 & 1, f16c = c >> 29 & 1;
  if (!osxsave || !avx || (xgetbv0() & 6) != 6) return PL_LEVEL_ref;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return PL_LEVEL_ref;
  int avx2 = b >> 5 & 1;
  if (!avx2 || !fma || !f16c) return PL_LEVEL_ref;
  int foundation = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = c >> 11 & 1;
  int state = (xgetbv0() & 0xe6) == 0xe6; /* the system saves the mask and the 512-bit registers */
  return foundation && dq && bw && vl && vnni && state ? PL_LEVEL_avx512 : PL_LEVEL_avx2;
}
#elif defined(__aarch64__) || defined(_M_ARM64)
int pl_cpu_detect(void) { return PL_LEVEL_neon; } /* part of the base architecture */
#else
int pl_cpu_detect(void) { return PL_LEVEL_ref; }
#endif

static const char *const level_names[] = {
#define PL_LEVEL(name) #name,
#include "kern/levels.inc"
#undef PL_LEVEL
};

static int best = -1, level = -1;

static void init(void) {
  if (best >= 0) return;
  int b = pl_cpu_detect(), l = b;
  const char *want = getenv("PYLLM_CPU");
  if (want)
    for (int i = 0; i <= b; i++)
      if (!strcmp(want, level_names[i])) l = i;
  level = l;
  best = b;
}

int32_t pl_cpu_best(void) { return init(), best; }
int32_t pl_cpu_level(void) { return init(), level; }
int32_t pl_cpu_levels(void) { return PL_N_LEVELS; }
const char *pl_cpu_level_name(int32_t l) { return l >= 0 && l < PL_N_LEVELS ? level_names[l] : ""; }

int32_t pl_cpu_set_level(int32_t l) {
  init();
  if (l < 0 || l > best) return PL_E_ARG;
  level = l;
  return 0;
}
