/* scale_k.h: the packed 6-bit scales (and minimums) of sub-blocks. */
#ifndef PL_REF_SCALE_K_H
#define PL_REF_SCALE_K_H
#include <stdint.h>

#include "quant/blocks.h"

/* Q4_K, Q5_K. Sub-blocks 0..3 keep six bits in bytes j and j + 4; 4..7 keep four bits in the nibbles of byte j + 4
 * and two in the top of the bytes of sub-block j - 4. */
static inline void scale_min(const uint8_t *s /* [12] */, int j, uint8_t *sc, uint8_t *m) {
  if (j < 4) {
    *sc = s[j] & 63;
    *m = s[j + 4] & 63;
  } else {
    *sc = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
    *m = (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
  }
}

/* Q3_K, 16 sub-blocks: four bits in the low nibbles of bytes 0..7, then in the high ones; two bits in bytes 8..11,
 * the lowest of all four first. -32 .. 31. */
static inline int8_t scale_q3(const uint8_t *s /* [12] */, int j) {
  return (int8_t)(((s[j % 8] >> j / 8 * 4 & 15) | (s[8 + j % 4] >> j / 4 * 2 & 3) << 4) - 32);
}

/* IQ4_XS, 8 sub-blocks: four bits in nibbles, two bits in a word. -32 .. 31. */
static inline int8_t scale_iq4_xs(const pl_block_iq4_xs *b, int j) {
  return (int8_t)(((b->scales_l[j / 2] >> j % 2 * 4 & 15) | (b->scales_h >> j * 2 & 3) << 4) - 32);
}

#endif
