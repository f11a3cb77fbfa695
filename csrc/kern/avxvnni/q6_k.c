#include "kern/avxvnni/mm.h"

/* The sums may take 17 bits. */
PL_INLINE __m256i mix(__m256i sum0, __m256i sum1, __m256i s0, __m256i s1) {
  return _mm256_add_epi32(_mm256_mullo_epi32(sum0, s0), _mm256_mullo_epi32(sum1, s1));
}

PL_TILE_16(416, 32, code_u6, mix)
PL_MM(Q6_K, avxvnni)
