#include "kern/avx512/mm.h"

PL_INLINE __m512 bf16x16(const void *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

PL_TILE_FLOAT(2, bf16x16)
PL_MM8(BF16)
