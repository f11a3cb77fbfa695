/* check.h: checkkern's own tools: entries of kern.inc, random numbers, guarded buffers, comparison, failure. */
#ifndef CHECK_H
#define CHECK_H
#include <stddef.h>
#include <stdint.h>

#include "kern/kern.h"

typedef void any_fn(void);

/* One line of kern.inc. */
typedef struct entry {
  const char *op, *type, *level;
  int level_id, type_id; /* type_id -1: no tensor type */
  any_fn *fn;
} entry;

static inline const pl_kern_table *ref(void) { return pl_kern_at(PL_LEVEL_ref); }
static inline int is_ref(const entry *e) { return e->level_id == PL_LEVEL_ref; }
/* The name that the command line goes by: mm_Q4_0_avx2, quant_ref. It lives as text() does. */
const char *full_name(const entry *e);

/* Every check of one kernel ends here when it fails; does not return. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- random numbers: seeded per kernel from --seed and the kernel's name ---- */
uint64_t rnd(void);
int rnd_int(int lo, int hi); /* inclusive */
double rnd_real(double lo, double hi);
void rnd_bytes(void *p, size_t n);
/* A float of one of the moods below. */
enum mood { NORMAL, WIDE, TINY, HUGE_, SPECIAL, ZERO, N_MOODS };
float rnd_float(enum mood mood);
const char *mood_name(enum mood mood);

/* ---- buffers: slots of memory with an inaccessible page before and after ---- */
enum slot { SLOT_W, SLOT_PANEL, SLOT_PANEL2, SLOT_A, SLOT_B, SLOT_C, SLOT_OUT, SLOT_OUT2, SLOT_WANT, N_SLOTS };
/* bytes of slot s: ending at the page behind it, or starting at the page before it (both are tried by all checks).
 * align is kept: what lies between the buffer and the page is filled with a pattern and watched, and so is the
 * rest. */
void *buffer(enum slot s, size_t bytes, size_t align);
/* Fail if anything outside the buffer handed out last from slot s was written. */
void check_outside(enum slot s);
void buffers_at_end(int yes);
/* n floats of this mood in slot s. */
float *floats(enum slot s, int64_t n, enum mood mood);

/* ---- comparison ---- */
/* Every bit equal; two NaNs are equal. what names the case. */
void same_floats(const float *got, const float *want, int64_t n, const char *what);
void same_bytes(const void *got, const void *want, size_t n, const char *what);
#define EPS 0x1p-24 /* half an ulp of 1 */
/* |got - want| <= tolerance */
void near_enough(double got, double want, double tolerance, const char *what);

/* Called after every call of the kernel under test with what it wrote: --break spoils it here. */
void called(void *out, size_t bytes, enum slot s);

/* What the case at hand is: text that lives until the next title. */
const char *title(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Text that lives until the next few calls. */
const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- the checks, by op: each tries one kernel ---- */
void check_deq(const entry *e);
void check_enc(const entry *e);
void check_mm(const entry *e);
void check_mm2(const entry *e);
void check_pack(const entry *e);
void check_panel_bytes(const entry *e);
void check_quant(const entry *e);
void check_rmsnorm(const entry *e);
void check_silu(const entry *e);
void check_gelu(const entry *e);
void check_softcap(const entry *e);
void check_rope(const entry *e);
void check_qk(const entry *e);
void check_softmax(const entry *e);
void check_av(const entry *e);
void check_merge(const entry *e);
void check_rotate(const entry *e);
void check_quant16(const entry *e);
void check_code8(const entry *e);
void check_code4(const entry *e);
void check_load_f16(const entry *e);
void check_store_f16(const entry *e);
void check_store_bf16(const entry *e);

/* ---- data ---- */
/* Fill rows of k values of a type with random blocks: codes random, or all extreme, scales of this mood. */
void fill_rows(int type, void *rows, int64_t row_bytes, int32_t nr, int64_t k, enum mood mood, int extreme);
void fill_acts(int is_q8, void *acts, int64_t stride, int32_t nt, int64_t k, enum mood mood, int extreme);
int is_q8_type(int type);

/* ---- benchmarks ---- */
/* Time kernel e; prints a line, or appends JSON. */
void bench(const entry *e, int json, int *first);
/* Print what the machine can do at best. */
void limits(int json, int n_threads);

#endif
