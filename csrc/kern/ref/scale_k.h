/* scale_k.h: the packed 6-bit scales and minimums of Q4_K and Q5_K. */
#ifndef PL_REF_SCALE_K_H
#define PL_REF_SCALE_K_H
#include <stdint.h>

/* Sub-blocks 0..3 keep six bits in bytes j and j + 4; 4..7 keep four bits in the nibbles of byte j + 4 and two in
 * the top of the bytes of sub-block j - 4. */
static inline void scale_min(const uint8_t *s /* [12] */, int j, uint8_t *sc, uint8_t *m) {
  if (j < 4) {
    *sc = s[j] & 63;
    *m = s[j + 4] & 63;
  } else {
    *sc = (uint8_t)((s[j + 4] & 15) | (s[j - 4] >> 6) << 4);
    *m = (uint8_t)(s[j + 4] >> 4 | (s[j] >> 6) << 4);
  }
}

#endif
