#include "kern/avx2/exp.h"
#include "kern/tile.h"

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

void pl_merge_avx2(int32_t nq, int32_t hdp, float *m, float *sum, float *o, const float *mc, const float *sumc,
                   const float *oc) {
  for (int32_t r = 0; r < nq; r++, o += hdp, oc += hdp) {
    if (sumc[r] == 0) continue;
    float top = mc[r] > m[r] ? mc[r] : m[r], a = pl_exp(m[r] - top), b = pl_exp(mc[r] - top);
    sum[r] = fmaf(sumc[r], b, sum[r] * a);
    for (int32_t d = 0; d < hdp; d += 8)
      _mm256_storeu_ps(o + d, _mm256_fmadd_ps(_mm256_loadu_ps(oc + d), _mm256_set1_ps(b),
                                              _mm256_mul_ps(_mm256_loadu_ps(o + d), _mm256_set1_ps(a))));
    m[r] = top;
  }
}
