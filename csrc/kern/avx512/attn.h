/* attn.h: what the AVX-512 attention kernels share. */
#ifndef PL_AVX512_ATTN_H
#define PL_AVX512_ATTN_H
#include "kern/attn.h"
#include "kern/avx512/mm.h"

/* 16 values of a float type. */
PL_INLINE __m512 widen16(const uint8_t *p, const int type) {
  if (type == PL_F32) return _mm512_loadu_ps(p);
  return type == PL_F16 ? half16(p) : bfloat16(p);
}

#endif
