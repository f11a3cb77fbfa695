#include <arm_neon.h>

#include "kern/kern.h"

/* Four pairs: a' = a c - b s, b' = b c + a s. */
static inline float32x4x2_t rotate(float32x4_t a, float32x4_t b, float32x4x2_t cs) {
  float32x4x2_t y;
  y.val[0] = vfmaq_f32(vnegq_f32(vmulq_f32(b, cs.val[1])), a, cs.val[0]);
  y.val[1] = vfmaq_f32(vmulq_f32(a, cs.val[1]), b, cs.val[0]);
  return y;
}

void pl_rope_neon(float *x, int32_t n_heads, int64_t head_stride, int32_t n_rot, int32_t interleaved,
                  const float *cs) {
  int32_t half = n_rot / 2;
  for (int32_t h = 0; h < n_heads; h++, x += head_stride) {
    int32_t i = 0;
    for (; i + 4 <= half; i += 4) {
      float32x4x2_t r = vld2q_f32(cs + 2 * i);
      if (interleaved) {
        float32x4x2_t v = vld2q_f32(x + 2 * i);
        vst2q_f32(x + 2 * i, rotate(v.val[0], v.val[1], r));
      } else {
        float32x4x2_t v = rotate(vld1q_f32(x + i), vld1q_f32(x + i + half), r);
        vst1q_f32(x + i, v.val[0]);
        vst1q_f32(x + i + half, v.val[1]);
      }
    }
    for (; i < half; i++) {
      float *pa = interleaved ? x + 2 * i : x + i, *pb = interleaved ? x + 2 * i + 1 : x + i + half;
      float a = *pa, b = *pb, c = cs[2 * i], s = cs[2 * i + 1];
      *pa = fmaf(a, c, -(b * s));
      *pb = fmaf(b, c, a * s);
    }
  }
}
