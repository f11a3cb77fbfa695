#include "kern/avxvnni/mm.h"

/* The sums fit in int16. */
PL_INLINE __m256i mix(__m256i sum0, __m256i sum1, __m256i s0, __m256i s1) {
  return _mm256_madd_epi16(pairs(sum0, sum1), pairs(s0, s1));
}

PL_TILE_16(224, 4, code_u3, mix)
PL_MM(Q3_K, avxvnni)
