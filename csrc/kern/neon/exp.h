/* exp.h: pl_exp of 4 floats. */
#ifndef PL_NEON_EXP_H
#define PL_NEON_EXP_H
#include <arm_neon.h>

#include "kern/kern.h"

static inline float32x4_t exp4(float32x4_t x) {
  const float32x4_t lo = vdupq_n_f32(PL_EXP_LO), hi = vdupq_n_f32(PL_EXP_HI);
  x = vbslq_f32(vcltq_f32(x, lo), lo, x); /* NaN stays */
  x = vbslq_f32(vcgtq_f32(x, hi), hi, x);
  float32x4_t n = vrndnq_f32(vmulq_n_f32(x, PL_LOG2E));
  float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(PL_LN2_HI));
  r = vfmsq_f32(r, n, vdupq_n_f32(PL_LN2_LO));
  float32x4_t p = vdupq_n_f32(1.3888889e-3f);
  p = vfmaq_f32(vdupq_n_f32(8.3333333e-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(4.1666667e-2f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.6666667e-1f), p, r);
  p = vfmaq_f32(vdupq_n_f32(5.0e-1f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
  int32x4_t e = vcvtq_s32_f32(n), e1 = vshrq_n_s32(e, 1), e2 = vsubq_s32(e, e1);
  const int32x4_t bias = vdupq_n_s32(127);
  float32x4_t a = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e1, bias), 23));
  float32x4_t b = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(e2, bias), 23));
  return vmulq_f32(vmulq_f32(p, a), b);
}

#endif
