/* attn.h: what the NEON attention kernels share. */
#ifndef PL_NEON_ATTN_H
#define PL_NEON_ATTN_H
#include <arm_neon.h>

#include "kern/attn.h"

/* 4 values of a float type. */
PL_INLINE float32x4_t widen4(const uint8_t *p, const int type) {
  if (type == PL_F32) return vld1q_f32((const float *)(const void *)p);
  uint16x4_t v = vld1_u16((const uint16_t *)(const void *)p);
  if (type == PL_F16) return vcvt_f32_f16(vreinterpret_f16_u16(v));
  return vreinterpretq_f32_u32(vshll_n_u16(v, 16));
}

#endif
