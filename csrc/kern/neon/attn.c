#include "kern/neon/exp.h"
#include "kern/tile.h"

/* NQ queries against one block of 16 keys. */
PL_INLINE void scores(const float *q, int64_t q_stride, const float *kt, int32_t hd, float scale, float *s,
                      int64_t s_stride, const int NQ) {
  float32x4_t acc[4][4];
  PL_UNROLL for (int i = 0; i < NQ; i++) PL_UNROLL for (int h = 0; h < 4; h++) acc[i][h] = vdupq_n_f32(0);
  for (int32_t d = 0; d < hd; d++) {
    float32x4_t k[4];
    PL_UNROLL for (int h = 0; h < 4; h++) k[h] = vld1q_f32(kt + d * PL_PAGE + 4 * h);
    PL_UNROLL for (int i = 0; i < NQ; i++) PL_UNROLL for (int h = 0; h < 4; h++) acc[i][h] =
        vfmaq_n_f32(acc[i][h], k[h], q[i * q_stride + d]);
  }
  PL_UNROLL for (int i = 0; i < NQ; i++) PL_UNROLL for (int h = 0; h < 4; h++)
      vst1q_f32(s + i * s_stride + 4 * h, vmulq_n_f32(acc[i][h], scale));
}

void pl_qk_neon(const float *q, int64_t q_stride, int32_t nq, const float *kt, int32_t hd, float scale, float *s,
                int64_t s_stride) {
  for (; nq >= 4; nq -= 4, q += 4 * q_stride, s += 4 * s_stride)
    scores(q, q_stride, kt, hd, scale, s, s_stride, 4);
  if (nq == 3) scores(q, q_stride, kt, hd, scale, s, s_stride, 3);
  if (nq == 2) scores(q, q_stride, kt, hd, scale, s, s_stride, 2);
  if (nq == 1) scores(q, q_stride, kt, hd, scale, s, s_stride, 1);
}

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

void pl_av_neon(const float *p, int32_t n, const float *v, int32_t hd, float *o) {
  for (int32_t d = 0; d < hd; d += 16) {
    float32x4_t acc[4];
    PL_UNROLL for (int i = 0; i < 4; i++) acc[i] = vld1q_f32(o + d + 4 * i);
    for (int32_t j = 0; j < n; j++)
      PL_UNROLL for (int i = 0; i < 4; i++) acc[i] =
          vfmaq_n_f32(acc[i], vld1q_f32(v + (int64_t)j * hd + d + 4 * i), p[j]);
    PL_UNROLL for (int i = 0; i < 4; i++) vst1q_f32(o + d + 4 * i, acc[i]);
  }
}
