/* tools.c: random numbers, guarded buffers, comparison. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/half.h"
#include "check.h"
#include "run.h"

/* ---- random numbers ---- */

static uint64_t state;

void rnd_seed(uint64_t seed, const char *name) {
  state = seed * 0x9e3779b97f4a7c15u + 1;
  for (; *name; name++) state = (state ^ (uint8_t)*name) * 0x100000001b3u;
}

uint64_t rnd(void) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

int rnd_int(int lo, int hi) { return lo + (int)(rnd() % (uint64_t)(hi - lo + 1)); }
double rnd_real(double lo, double hi) { return lo + (hi - lo) * (double)(rnd() >> 11) * 0x1p-53; }

void rnd_bytes(void *p, size_t n) {
  for (uint8_t *b = p; n--; b++) *b = (uint8_t)rnd();
}

const char *mood_name(enum mood mood) {
  static const char *const names[] = {"normal", "wide", "tiny", "huge", "special", "zero"};
  return names[mood];
}

float rnd_float(enum mood mood) {
  float sign = rnd() & 1 ? 1.0f : -1.0f;
  switch (mood) {
    case NORMAL:
      return (float)rnd_real(-1, 1);
    case WIDE:
      return sign * (float)ldexp(rnd_real(1, 2), rnd_int(-20, 20));
    case TINY:
      return pl_bits_f32((uint32_t)(rnd() & 0x80ffffff)); /* subnormal or about 2^-126 */
    case HUGE_:
      return sign * (float)ldexp(rnd_real(1, 2), rnd_int(118, 126));
    case ZERO:
      return sign * 0.0f;
    default: {
      static const float special[] = {INFINITY, -INFINITY, NAN, 0.0f, -0.0f, 3.4028235e38f, 1.4e-45f};
      int i = rnd_int(0, 13);
      return i < 7 ? special[i] : (float)rnd_real(-8, 8);
    }
  }
}

/* ---- buffers ---- */

enum { PATTERN = 0xa5, SLOT_BYTES = 4 << 20 };
static struct {
  uint8_t *base, *start;
  size_t bytes;
} slots[N_SLOTS];
static int at_end = 1;

void buffers_init(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), span = SLOT_BYTES + 2 * page;
  for (int s = 0; s < N_SLOTS; s++) {
    uint8_t *p = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + page, SLOT_BYTES, PROT_READ | PROT_WRITE)) {
      perror("checkkern: mmap");
      exit(2);
    }
    slots[s].base = p + page;
  }
}

void buffers_at_end(int yes) { at_end = yes; }

/* The watched bytes: up to 4096 on either side of the buffer. */
static void outside(int s, uint8_t **lo, uint8_t **hi) {
  uint8_t *base = slots[s].base, *start = slots[s].start, *end = start + slots[s].bytes;
  *lo = start - base > 4096 ? start - 4096 : base;
  *hi = base + SLOT_BYTES - end > 4096 ? end + 4096 : base + SLOT_BYTES;
}

void *buffer(enum slot s, size_t bytes, size_t align) {
  if (bytes + align > SLOT_BYTES) fail("checkkern: a buffer of %zu bytes does not fit in its slot", bytes);
  uint8_t *base = slots[s].base;
  slots[s].start = at_end ? base + (SLOT_BYTES - bytes) / align * align : base;
  slots[s].bytes = bytes;
  uint8_t *lo, *hi;
  outside(s, &lo, &hi);
  memset(lo, PATTERN, (size_t)(hi - lo));
  return slots[s].start;
}

float *floats(enum slot s, int64_t n, enum mood mood) {
  float *p = buffer(s, (size_t)n * 4, 4);
  for (int64_t i = 0; i < n; i++) p[i] = rnd_float(mood);
  return p;
}

void check_outside(enum slot s) {
  uint8_t *lo, *hi, *end = slots[s].start + slots[s].bytes;
  outside(s, &lo, &hi);
  for (uint8_t *p = lo; p < hi; p++)
    if ((p < slots[s].start || p >= end) && *p != PATTERN)
      fail("wrote outside a buffer: at %td from its start (it has %zu bytes)", p - slots[s].start, slots[s].bytes);
}

/* ---- breaking a kernel on purpose ---- */

static const char *breakage;

void break_with(const char *how) { breakage = how; }

void called(void *out, size_t bytes, enum slot s) {
  if (breakage) {
    volatile uint8_t *p = out, *end = slots[s].base + SLOT_BYTES;
    size_t word = bytes < 4 ? 0 : rnd() % (bytes / 4) * 4;
    if (!strcmp(breakage, "ulp")) p[word] ^= 1;
    if (!strcmp(breakage, "bit")) p[bytes < 4 ? 1 : word + 3] ^= 1; /* a float's exponent */
    if (!strcmp(breakage, "read")) (void)*end;
    if (!strcmp(breakage, "write") && at_end) p[-1] ^= 1;
    if (!strcmp(breakage, "write") && !at_end) p[bytes] ^= 1;
    if (!strcmp(breakage, "trap")) __builtin_trap();
  }
  check_outside(s);
}

/* ---- comparison ---- */

void same_floats(const float *got, const float *want, int64_t n, const char *what) {
  for (int64_t i = 0; i < n; i++) {
    if (got[i] != got[i] && want[i] != want[i]) continue;
    if (pl_f32_bits(got[i]) != pl_f32_bits(want[i]))
      fail("%s: element %lld is %a (%g), expected %a (%g)", what, (long long)i, (double)got[i], (double)got[i],
           (double)want[i], (double)want[i]);
  }
}

void same_bytes(const void *got, const void *want, size_t n, const char *what) {
  const uint8_t *g = got, *w = want;
  for (size_t i = 0; i < n; i++)
    if (g[i] != w[i]) fail("%s: byte %zu is %#04x, expected %#04x", what, i, g[i], w[i]);
}

void near_enough(double got, double want, double tolerance, const char *what) {
  if (!(fabs(got - want) <= tolerance))
    fail("%s: %.9g, expected %.9g within %.3g (off by %.3g)", what, got, want, tolerance, fabs(got - want));
}

const char *full_name(const entry *e) {
  return e->type[0] ? text("%s_%s_%s", e->op, e->type, e->level) : text("%s_%s", e->op, e->level);
}

const char *title(const char *format, ...) {
  static char s[256];
  va_list args;
  va_start(args, format);
  vsnprintf(s, sizeof s, format, args);
  va_end(args);
  return s;
}

const char *text(const char *format, ...) {
  static char ring[8][256];
  static int next;
  char *s = ring[next++ % 8];
  va_list args;
  va_start(args, format);
  vsnprintf(s, sizeof ring[0], format, args);
  va_end(args);
  return s;
}
