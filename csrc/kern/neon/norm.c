#include <arm_neon.h>

#include "kern/kern.h"

void pl_rmsnorm_neon(const float *x, const float *w, int64_t n, float eps, float *y) {
  float32x4_t s[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
  float ss[16];
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 4; j++) {
      float32x4_t v = vld1q_f32(x + i + 4 * j);
      s[j] = vfmaq_f32(s[j], v, v);
    }
  for (int j = 0; j < 4; j++) vst1q_f32(ss + 4 * j, s[j]);
  for (; i < n; i++) ss[i % 16] = fmaf(x[i], x[i], ss[i % 16]);
  float r = 1.0f / sqrtf(pl_tree16(ss) / (float)n + eps);
  for (i = 0; i + 4 <= n; i += 4) vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(w + i)));
  for (; i < n; i++) y[i] = x[i] * r * w[i];
}
