#include "kern/avx2/exp.h"

void pl_silu_avx2(const float *g, const float *u, int64_t n, float *y) {
  const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 v = _mm256_loadu_ps(g + i);
    __m256 s = _mm256_div_ps(v, _mm256_add_ps(one, exp8(_mm256_xor_ps(v, sign))));
    _mm256_storeu_ps(y + i, _mm256_mul_ps(s, _mm256_loadu_ps(u + i)));
  }
  for (; i < n; i++) y[i] = g[i] / (1.0f + pl_exp(-g[i])) * u[i];
}

void pl_gelu_avx2(const float *g, const float *u, int64_t n, float *y) {
  const __m256 one = _mm256_set1_ps(1.0f), k1 = _mm256_set1_ps(-PL_GELU_1), k3 = _mm256_set1_ps(-PL_GELU_3);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 v = _mm256_loadu_ps(g + i), z = _mm256_mul_ps(v, _mm256_fmadd_ps(k3, _mm256_mul_ps(v, v), k1));
    __m256 s = _mm256_div_ps(v, _mm256_add_ps(one, exp8(z)));
    _mm256_storeu_ps(y + i, u ? _mm256_mul_ps(s, _mm256_loadu_ps(u + i)) : s);
  }
  for (; i < n; i++) {
    float v = g[i] / (1.0f + pl_exp(g[i] * fmaf(-PL_GELU_3, g[i] * g[i], -PL_GELU_1)));
    y[i] = u ? v * u[i] : v;
  }
}

void pl_softcap_avx2(float *x, int64_t n, float cap) {
  const __m256 one = _mm256_set1_ps(1.0f), two = _mm256_set1_ps(2.0f), c = _mm256_set1_ps(cap);
  const __m256 k = _mm256_set1_ps(2.0f / cap);
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 e = exp8(_mm256_mul_ps(_mm256_loadu_ps(x + i), k));
    _mm256_storeu_ps(x + i, _mm256_fnmadd_ps(c, _mm256_div_ps(two, _mm256_add_ps(one, e)), c));
  }
  for (; i < n; i++) x[i] = fmaf(-cap, 2.0f / (1.0f + pl_exp(x[i] * (2.0f / cap))), cap);
}
