/* pack.h: what the pack kernels share. */
#ifndef PL_AVX2_PACK_H
#define PL_AVX2_PACK_H
#include <stdint.h>
#include <string.h>

#include "kern/kern.h"

static inline int64_t round64(int64_t n) { return (n + 63) / 64 * 64; }

/* Two and four bytes from anywhere to anywhere. */
static inline void copy2(uint8_t *to, const void *from) { memcpy(to, from, 2); }
static inline void copy4(uint8_t *to, const void *from) { memcpy(to, from, 4); }

/* The 32 fifth bits of one row (bit i of qh for value i), as the four bytes of its lane: bit q of byte i is that
 * of value 4q + i. */
static inline void fifth_bits(uint32_t qh, uint8_t *lane) {
  for (int i = 0; i < 4; i++) {
    uint32_t bits = 0;
    for (int q = 0; q < 8; q++) bits |= (qh >> (4 * q + i) & 1) << q;
    lane[i] = (uint8_t)bits;
  }
}

#endif
