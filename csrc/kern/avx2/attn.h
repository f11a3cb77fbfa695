/* attn.h: what the AVX2 attention kernels share. */
#ifndef PL_AVX2_ATTN_H
#define PL_AVX2_ATTN_H
#include "kern/attn.h"
#include "kern/avx2/mm.h"

/* 8 values of a float type. */
PL_INLINE __m256 widen8(const uint8_t *p, const int type) {
  if (type == PL_F32) return _mm256_loadu_ps((const float *)(const void *)p);
  return type == PL_F16 ? half8(p) : bfloat8(p);
}

#endif
