/* offsets.h: the first step of the qk kernels of Q4_0, the same in all rooms. */
#ifndef PL_OFFSETS_H
#define PL_OFFSETS_H
#include <string.h>

#include "kern/kern.h"

/* The offsets of some pages, made one block of keys in the layout of Q8_0. */
typedef struct pl_offsets {
  int8_t codes[PL_HEAD_MAX * PL_PAGE]; /* and then, right after hd * PL_PAGE of them, the scales */
  uint16_t room[PL_HEAD_MAX / 32 * PL_PAGE];
} pl_offsets;

static inline void pl_gather_offsets(const void *const *k, int32_t nb, int32_t hd, pl_offsets *y) {
  uint16_t *d = (uint16_t *)(void *)(y->codes + hd * PL_PAGE);
  for (int32_t p = 0; p < nb; p++) {
    const uint8_t *offset = (const uint8_t *)k[p] + hd * PL_PAGE / 2 + hd / 32 * PL_PAGE * 2;
    for (int32_t g = 0; g < hd / 4; g++) memcpy(y->codes + (g * PL_PAGE + p) * 4, offset + 4 * g, 4);
    for (int32_t b = 0; b < hd / 32; b++) memcpy(d + b * PL_PAGE + p, offset + hd + 2 * b, 2);
  }
}

#endif
