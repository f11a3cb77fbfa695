#include "base/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "kern/kern.h"

enum { REF = 1 << PL_LEVEL_ref };

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

static uint64_t xgetbv0(void) {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

uint32_t pl_cpu_detect(void) {
  uint32_t a, b, c, d, found = REF;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  int osxsave = c >> 27 & 1, avx = c >> 28 & 1, fma = c >> 12 & 1, f16c = c >> 29 & 1;
  if (!osxsave || !avx || (xgetbv0() & 6) != 6) return found;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  int avx2 = b >> 5 & 1;
  if (!avx2 || !fma || !f16c) return found;
  found |= 1 << PL_LEVEL_avx2;
  int foundation = b >> 16 & 1, dq = b >> 17 & 1, bw = b >> 30 & 1, vl = b >> 31 & 1, vnni = c >> 11 & 1;
  int state = (xgetbv0() & 0xe6) == 0xe6; /* the system saves the mask and the 512-bit registers */
  if (foundation && dq && bw && vl && vnni && state) found |= 1 << PL_LEVEL_avx512;
#if defined(PL_HAVE_AVXVNNI)
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1) found |= 1 << PL_LEVEL_avxvnni;
#endif
  return found;
}
#elif defined(__aarch64__) || defined(_M_ARM64)
#if defined(__linux__)
#include <sys/auxv.h>
static int has_dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; } /* HWCAP_ASIMDDP */
static int has_i8mm(void) { return getauxval(AT_HWCAP2) >> 13 & 1; }   /* HWCAP2_I8MM */
#elif defined(__APPLE__)
#include <sys/sysctl.h>
static int has(const char *name) {
  int value = 0;
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value;
}
static int has_dotprod(void) { return has("hw.optional.arm.FEAT_DotProd"); }
static int has_i8mm(void) { return has("hw.optional.arm.FEAT_I8MM"); }
#elif defined(_WIN32)
#include <windows.h>
static int has_dotprod(void) { return IsProcessorFeaturePresent(43); } /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
static int has_i8mm(void) { return IsProcessorFeaturePresent(66); }    /* PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE */
#else
static int has_dotprod(void) { return 0; }
static int has_i8mm(void) { return 0; }
#endif

uint32_t pl_cpu_detect(void) {
  uint32_t found = REF | 1 << PL_LEVEL_neon; /* part of the base architecture */
  int dotprod = has_dotprod(), i8mm = dotprod && has_i8mm();
  (void)i8mm;
#if defined(PL_HAVE_DOTPROD)
  if (dotprod) found |= 1 << PL_LEVEL_dotprod;
#endif
#if defined(PL_HAVE_I8MM)
  if (i8mm) found |= 1 << PL_LEVEL_i8mm;
#endif
  return found;
}
#else
uint32_t pl_cpu_detect(void) { return REF; }
#endif

static const char *const level_names[] = {
#define PL_LEVEL(name, base) #name,
#include "kern/levels.inc"
#undef PL_LEVEL
};

static uint32_t levels;
static int best, level;

static void init(void) {
  if (levels) return;
  uint32_t found = pl_cpu_detect();
  for (int l = 0; l < PL_N_LEVELS; l++)
    if (found >> l & 1) best = l;
  level = best;
  const char *want = getenv("PYLLM_CPU");
  for (int l = 0; want && l <= best; l++)
    if (found >> l & 1 && !strcmp(want, level_names[l])) level = l;
  levels = found;
}

int32_t pl_cpu_best(void) { return init(), best; }
int32_t pl_cpu_level(void) { return init(), level; }
int32_t pl_cpu_levels(void) { return PL_N_LEVELS; }
const char *pl_cpu_level_name(int32_t l) { return l >= 0 && l < PL_N_LEVELS ? level_names[l] : ""; }
int32_t pl_cpu_has(int32_t l) { return init(), l >= 0 && l < PL_N_LEVELS && (levels >> l & 1); }

int32_t pl_cpu_set_level(int32_t l) {
  if (!pl_cpu_has(l)) return PL_E_ARG;
  level = l;
  return 0;
}
