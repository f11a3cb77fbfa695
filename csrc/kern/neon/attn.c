#include <string.h>

#include "kern/neon/exp.h"

float pl_softmax_neon(float *s, int32_t n, float *m) {
  float max = *m, last[16], sums[16];
  int32_t j = 0, full = n / 16 * 16;
  float32x4_t top = vdupq_n_f32(max);
  for (; j + 4 <= n; j += 4) {
    float32x4_t v = vld1q_f32(s + j);
    top = vbslq_f32(vcgtq_f32(v, top), v, top); /* NaN is passed over */
  }
  for (int i = 0; i < 4; i++) max = top[i] > max ? top[i] : max;
  for (; j < n; j++) max = s[j] > max ? s[j] : max;
  max += 0.0f; /* -0 becomes +0 */
  float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
  for (j = 0; j < full; j += 16)
    for (int i = 0; i < 4; i++) {
      float32x4_t p = exp4(vsubq_f32(vld1q_f32(s + j + 4 * i), vdupq_n_f32(max)));
      vst1q_f32(s + j + 4 * i, p);
      sum[i] = vaddq_f32(sum[i], p);
    }
  if (full < n) {
    for (int i = 0; i < 16; i++) last[i] = full + i < n ? pl_exp(s[full + i] - max) : 0;
    for (int i = 0; i < 4; i++) sum[i] = vaddq_f32(sum[i], vld1q_f32(last + 4 * i));
    memcpy(s + full, last, sizeof last);
  }
  for (int i = 0; i < 4; i++) vst1q_f32(sums + 4 * i, sum[i]);
  *m = max;
  return pl_tree16(sums);
}

void pl_merge_neon(int32_t nq, int32_t hdp, float *m, float *sum, float *o, const float *mc, const float *sumc,
                   const float *oc) {
  for (int32_t r = 0; r < nq; r++, o += hdp, oc += hdp) {
    if (sumc[r] == 0) continue;
    float top = mc[r] > m[r] ? mc[r] : m[r], a = pl_exp(m[r] - top), b = pl_exp(mc[r] - top);
    sum[r] = fmaf(sumc[r], b, sum[r] * a);
    for (int32_t d = 0; d < hdp; d += 4)
      vst1q_f32(o + d, vfmaq_n_f32(vmulq_n_f32(vld1q_f32(o + d), a), vld1q_f32(oc + d), b));
    m[r] = top;
  }
}
