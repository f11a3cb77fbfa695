/* attn.h: what the AVX-512 attention kernels share. */
#ifndef PL_AVX512_ATTN_H
#define PL_AVX512_ATTN_H
#include "kern/avx512/mm.h"

/* Bytes of a value of the float types. */
PL_INLINE int64_t width(const int type) { return type == PL_F32 ? 4 : 2; }

/* 16 values of a float type. */
PL_INLINE __m512 widen16(const uint8_t *p, const int type) {
  if (type == PL_F32) return _mm512_loadu_ps(p);
  if (type == PL_F16) return half16(p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}

#endif
