/* deq.h: what the AVX2 dequantization of types with codebooks shares. */
#ifndef PL_AVX2_DEQ_H
#define PL_AVX2_DEQ_H
#include <immintrin.h>

#include "base/half.h"
#include "kern/tile.h"
#include "quant/grids.h"

/* table [code] for eight codes of so many bits, lowest first; an index is three bits from where its code starts. */
PL_INLINE __m256 lookup8(__m256 table, uint32_t codes, int bits) {
  __m256i at = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(bits));
  return _mm256_permutevar8x32_ps(table, _mm256_srlv_epi32(_mm256_set1_epi32((int32_t)codes), at));
}

/* y [8] = d * v, negative where the bit of signs is set. */
PL_INLINE void put_signed(__m256 v, float d, uint8_t signs, float *y) {
  const __m256i to_top = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
  __m256i s = _mm256_and_si256(_mm256_sllv_epi32(_mm256_set1_epi32(signs), to_top), _mm256_set1_epi32(INT32_MIN));
  _mm256_storeu_ps(y, _mm256_xor_ps(_mm256_mul_ps(_mm256_set1_ps(d), v), _mm256_castsi256_ps(s)));
}

#endif
