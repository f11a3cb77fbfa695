#include "kern/neon/exp.h"

void pl_silu_neon(const float *g, const float *u, int64_t n, float *y) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    float32x4_t v = vld1q_f32(g + i), s = vdivq_f32(v, vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(v))));
    vst1q_f32(y + i, vmulq_f32(s, vld1q_f32(u + i)));
  }
  for (; i < n; i++) y[i] = g[i] / (1.0f + pl_exp(-g[i])) * u[i];
}
