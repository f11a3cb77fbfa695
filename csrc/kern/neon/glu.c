#include "kern/neon/exp.h"

void pl_silu_neon(const float *g, const float *u, int64_t n, float *y) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    float32x4_t v = vld1q_f32(g + i), s = vdivq_f32(v, vaddq_f32(vdupq_n_f32(1.0f), exp4(vnegq_f32(v))));
    vst1q_f32(y + i, vmulq_f32(s, vld1q_f32(u + i)));
  }
  for (; i < n; i++) y[i] = g[i] / (1.0f + pl_exp(-g[i])) * u[i];
}

void pl_gelu_neon(const float *g, const float *u, int64_t n, float *y) {
  const float32x4_t one = vdupq_n_f32(1.0f), k1 = vdupq_n_f32(-PL_GELU_1), k3 = vdupq_n_f32(-PL_GELU_3);
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    float32x4_t v = vld1q_f32(g + i), z = vmulq_f32(v, vfmaq_f32(k1, k3, vmulq_f32(v, v)));
    float32x4_t s = vdivq_f32(v, vaddq_f32(one, exp4(z)));
    vst1q_f32(y + i, u ? vmulq_f32(s, vld1q_f32(u + i)) : s);
  }
  for (; i < n; i++) {
    float v = g[i] / (1.0f + pl_exp(g[i] * fmaf(-PL_GELU_3, g[i] * g[i], -PL_GELU_1)));
    y[i] = u ? v * u[i] : v;
  }
}

void pl_softcap_neon(float *x, int64_t n, float cap) {
  const float32x4_t one = vdupq_n_f32(1.0f), two = vdupq_n_f32(2.0f), c = vdupq_n_f32(cap);
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    float32x4_t e = exp4(vmulq_n_f32(vld1q_f32(x + i), 2.0f / cap));
    vst1q_f32(x + i, vfmsq_f32(c, c, vdivq_f32(two, vaddq_f32(one, e))));
  }
  for (; i < n; i++) x[i] = fmaf(-cap, 2.0f / (1.0f + pl_exp(x[i] * (2.0f / cap))), cap);
}
