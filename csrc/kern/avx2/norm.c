#include "kern/avx2/exp.h"

void pl_rmsnorm_avx2(const float *x, const float *w, int64_t n, float eps, float *y) {
  float ss[16];
  __m256 s0 = _mm256_setzero_ps(), s1 = s0;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
    s0 = _mm256_fmadd_ps(a, a, s0);
    s1 = _mm256_fmadd_ps(b, b, s1);
  }
  _mm256_storeu_ps(ss, s0);
  _mm256_storeu_ps(ss + 8, s1);
  for (; i < n; i++) ss[i % 16] = fmaf(x[i], x[i], ss[i % 16]);
  float r = 1.0f / sqrtf(pl_tree16(ss) / (float)n + eps);
  for (i = 0; i + 8 <= n; i += 8)
    _mm256_storeu_ps(
        y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(r)), _mm256_loadu_ps(w + i)));
  for (; i < n; i++) y[i] = x[i] * r * w[i];
}
