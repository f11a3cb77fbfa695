/* attn.h: what the AVX2 attention kernels share. */
#ifndef PL_AVX2_ATTN_H
#define PL_AVX2_ATTN_H
#include "kern/avx2/mm.h"

/* Bytes of a value of the float types. */
PL_INLINE int64_t width(const int type) { return type == PL_F32 ? 4 : 2; }

/* 8 values of a float type. */
PL_INLINE __m256 widen8(const uint8_t *p, const int type) {
  if (type == PL_F32) return _mm256_loadu_ps((const float *)(const void *)p);
  if (type == PL_F16) return half8(p);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}

#endif
