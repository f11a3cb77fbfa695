#include "kern/avx512/exp.h"

float pl_softmax_avx512(float *s, int32_t n, float *m) {
  __m512 top[2] = {_mm512_set1_ps(*m), _mm512_set1_ps(*m)}; /* max(a, b) keeps b where a is NaN */
  int32_t j = 0;
  for (; j + 32 <= n; j += 32) {
    top[0] = _mm512_max_ps(_mm512_loadu_ps(s + j), top[0]);
    top[1] = _mm512_max_ps(_mm512_loadu_ps(s + j + 16), top[1]);
  }
  for (; j < n; j += 16) {
    __mmask16 in = up_to(n - j);
    top[0] = _mm512_mask_max_ps(top[0], in, _mm512_maskz_loadu_ps(in, s + j), top[0]);
  }
  float max = _mm512_reduce_max_ps(_mm512_max_ps(top[0], top[1])) + 0.0f;
  const __m512 v = _mm512_set1_ps(max);
  __m512 sum = _mm512_setzero_ps();
  for (j = 0; j < n; j += 16) {
    __m512 p = _mm512_maskz_mov_ps(up_to(n - j), exp16(_mm512_sub_ps(_mm512_loadu_ps(s + j), v)));
    _mm512_storeu_ps(s + j, p);
    sum = _mm512_add_ps(sum, p);
  }
  *m = max;
  return tree16(sum);
}

void pl_merge_avx512(int32_t nq, int32_t hdp, float *m, float *sum, float *o, const float *mc, const float *sumc,
                     const float *oc) {
  for (int32_t r = 0; r < nq; r++, o += hdp, oc += hdp) {
    if (sumc[r] == 0) continue;
    float top = mc[r] > m[r] ? mc[r] : m[r];
    __m512 e = exp16(_mm512_setr_ps(m[r] - top, mc[r] - top, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0));
    __m512 a = _mm512_broadcastss_ps(_mm512_castps512_ps128(e));
    __m512 b = _mm512_broadcastss_ps(_mm_movehdup_ps(_mm512_castps512_ps128(e)));
    sum[r] = fmaf(sumc[r], _mm512_cvtss_f32(b), sum[r] * _mm512_cvtss_f32(a));
    for (int32_t d = 0; d < hdp; d += 16)
      _mm512_storeu_ps(o + d,
                       _mm512_fmadd_ps(_mm512_loadu_ps(oc + d), b, _mm512_mul_ps(_mm512_loadu_ps(o + d), a)));
    m[r] = top;
  }
}
