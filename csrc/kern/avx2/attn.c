#include "kern/avx2/exp.h"
#include "kern/avx2/mm.h"

/* NQ queries against one block of 16 keys. */
PL_INLINE void scores(const float *q, int64_t q_stride, const float *kt, int32_t hd, float scale, float *s,
                      int64_t s_stride, const int NQ) {
  __m256 acc[4][2];
  PL_UNROLL for (int i = 0; i < NQ; i++) acc[i][0] = acc[i][1] = _mm256_setzero_ps();
  for (int32_t d = 0; d < hd; d++) {
    __m256 k0 = _mm256_loadu_ps(kt + d * PL_PAGE), k1 = _mm256_loadu_ps(kt + d * PL_PAGE + 8);
    PL_UNROLL for (int i = 0; i < NQ; i++) {
      __m256 x = _mm256_set1_ps(q[i * q_stride + d]);
      acc[i][0] = _mm256_fmadd_ps(x, k0, acc[i][0]);
      acc[i][1] = _mm256_fmadd_ps(x, k1, acc[i][1]);
    }
  }
  PL_UNROLL for (int i = 0; i < NQ; i++) {
    _mm256_storeu_ps(s + i * s_stride, _mm256_mul_ps(acc[i][0], _mm256_set1_ps(scale)));
    _mm256_storeu_ps(s + i * s_stride + 8, _mm256_mul_ps(acc[i][1], _mm256_set1_ps(scale)));
  }
}

void pl_qk_avx2(const float *q, int64_t q_stride, int32_t nq, const float *kt, int32_t hd, float scale, float *s,
                int64_t s_stride) {
  for (; nq >= 4; nq -= 4, q += 4 * q_stride, s += 4 * s_stride)
    scores(q, q_stride, kt, hd, scale, s, s_stride, 4);
  if (nq == 3) scores(q, q_stride, kt, hd, scale, s, s_stride, 3);
  if (nq == 2) scores(q, q_stride, kt, hd, scale, s, s_stride, 2);
  if (nq == 1) scores(q, q_stride, kt, hd, scale, s, s_stride, 1);
}

/* All ones in the lanes whose index from j on is below n. */
PL_INLINE __m256 below(int32_t j, int32_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - j), lane));
}

float pl_softmax_avx2(float *s, int32_t n, float *m) {
  const __m256 none = _mm256_set1_ps(-INFINITY);
  __m256 top = _mm256_set1_ps(*m); /* max(a, b) keeps b where a is NaN */
  int32_t j = 0;
  for (; j + 8 <= n; j += 8) top = _mm256_max_ps(_mm256_loadu_ps(s + j), top);
  if (j < n) top = _mm256_max_ps(_mm256_blendv_ps(none, _mm256_loadu_ps(s + j), below(j, n)), top);
  __m128 t = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
  t = _mm_max_ps(t, _mm_movehl_ps(t, t));
  t = _mm_max_ss(t, _mm_shuffle_ps(t, t, 1));
  float max = _mm_cvtss_f32(t) + 0.0f;
  __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (j = 0; j < n; j += 16)
    for (int h = 0; h < 2; h++) {
      __m256 p = exp8(_mm256_sub_ps(_mm256_loadu_ps(s + j + 8 * h), _mm256_set1_ps(max)));
      if (j + 16 > n) p = _mm256_and_ps(p, below(j + 8 * h, n));
      _mm256_storeu_ps(s + j + 8 * h, p);
      sum[h] = _mm256_add_ps(sum[h], p);
    }
  *m = max;
  return tree16(sum[0], sum[1]);
}

/* NV registers of the output stay in registers while the keys go by. */
PL_INLINE void values(const float *p, int32_t n, const float *v, int32_t hd, float *o, const int NV) {
  __m256 acc[8];
  PL_UNROLL for (int i = 0; i < NV; i++) acc[i] = _mm256_loadu_ps(o + 8 * i);
  for (int32_t j = 0; j < n; j++, v += hd) {
    __m256 x = _mm256_set1_ps(p[j]);
    PL_UNROLL for (int i = 0; i < NV; i++) acc[i] = _mm256_fmadd_ps(x, _mm256_loadu_ps(v + 8 * i), acc[i]);
  }
  PL_UNROLL for (int i = 0; i < NV; i++) _mm256_storeu_ps(o + 8 * i, acc[i]);
}

void pl_av_avx2(const float *p, int32_t n, const float *v, int32_t hd, float *o) {
  int32_t d = 0;
  for (; d + 64 <= hd; d += 64) values(p, n, v + d, hd, o + d, 8);
  for (; d < hd; d += 16) values(p, n, v + d, hd, o + d, 2);
}
