#include "kern/kern.h"

void pl_qk_ref(const float *q, int64_t q_stride, int32_t nq, const float *kt, int32_t hd, float scale, float *s,
               int64_t s_stride) {
  for (int32_t i = 0; i < nq; i++)
    for (int32_t j = 0; j < PL_PAGE; j++) {
      float acc = 0;
      for (int32_t d = 0; d < hd; d++) acc = fmaf(q[i * q_stride + d], kt[d * PL_PAGE + j], acc);
      s[i * s_stride + j] = acc * scale;
    }
}

float pl_softmax_ref(float *s, int32_t n, float *m) {
  float max = *m, sum[16] = {0};
  for (int32_t j = 0; j < n; j++) max = s[j] > max ? s[j] : max;
  max += 0.0f; /* -0 becomes +0 */
  for (int32_t j = 0; j < n; j++) {
    s[j] = pl_exp(s[j] - max);
    sum[j % 16] += s[j];
  }
  for (int32_t j = n; j % 16; j++) s[j] = 0;
  *m = max;
  return pl_tree16(sum);
}

void pl_av_ref(const float *p, int32_t n, const float *v, int32_t hd, float *o) {
  for (int32_t j = 0; j < n; j++)
    for (int32_t d = 0; d < hd; d++) o[d] = fmaf(p[j], v[(int64_t)j * hd + d], o[d]);
}
