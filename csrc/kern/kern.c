#include "kern/kern.h"

#include <stddef.h>
#include <string.h>

/* Declarations, so that a misnamed kernel does not link and a kernel of the wrong shape does not compile. */
#define PL_K(op, type, level) extern pl_##op##_fn pl_##op##_##type##_##level;
#define PL_K1(op, level) extern pl_##op##_fn pl_##op##_##level;
#include "kern/kern.inc"
#undef PL_K
#undef PL_K1

typedef struct entry {
  const char *op, *type, *level;
  int level_id;
  size_t slot; /* offset in pl_kern_table */
  void (*fn)(void);
} entry;

static const entry entries[] = {
#define PL_K(op, type, level)                                        \
  {#op,                                                              \
   #type,                                                            \
   #level,                                                           \
   PL_LEVEL_##level,                                                 \
   offsetof(pl_kern_table, op) + PL_##type * sizeof(void (*)(void)), \
   (void (*)(void))pl_##op##_##type##_##level},
#define PL_K1(op, level) \
  {#op, "", #level, PL_LEVEL_##level, offsetof(pl_kern_table, op), (void (*)(void))pl_##op##_##level},
#include "kern/kern.inc"
#undef PL_K
#undef PL_K1
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };

static pl_kern_table tables[PL_N_LEVELS];

/* The level that each builds on. */
static const int bases[] = {
#define PL_LEVEL(name, base) PL_LEVEL_##base,
#include "kern/levels.inc"
#undef PL_LEVEL
};

/* Runs when the library is loaded, before any thread can call in. */
__attribute__((constructor)) static void build(void) {
  for (int l = 0; l < PL_N_LEVELS; l++) {
    tables[l] = tables[bases[l]];
    for (int i = 0; i < N_ENTRIES; i++)
      if (entries[i].level_id == l)
        memcpy((char *)&tables[l] + entries[i].slot, &entries[i].fn, sizeof entries[i].fn);
  }
}

const pl_kern_table *pl_kern_at(int level) { return &tables[level]; }
const pl_kern_table *pl_kern(void) { return &tables[pl_cpu_level()]; }

/* Whether entry i is the one the current level uses: its own, or the next on the way down. */
static int in_use(int i) {
  for (int level = pl_cpu_level();; level = bases[level]) {
    for (int j = 0; j < N_ENTRIES; j++)
      if (entries[j].slot == entries[i].slot && entries[j].level_id == level) return i == j;
    if (level == PL_LEVEL_ref) return 0;
  }
}

int32_t pl_kernel_at(int32_t n, pl_kernel_info *out) {
  if (n < 0 || !out) return PL_E_ARG;
  for (int i = 0; i < N_ENTRIES; i++)
    if (in_use(i) && n-- == 0) {
      *out = (pl_kernel_info){entries[i].op, entries[i].type, entries[i].level};
      return 0;
    }
  return PL_E_ARG;
}
