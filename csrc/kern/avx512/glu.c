#include "kern/avx512/exp.h"
#include "kern/tile.h"

PL_INLINE __m512 negated(__m512 v) { return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f)); }

/* v / (1 + e^z) * u, u being NULL for 1 */
PL_INLINE __m512 gated(__m512 v, __m512 z, const float *u, __mmask16 m) {
  __m512 s = _mm512_div_ps(v, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(z)));
  return u ? _mm512_mul_ps(s, _mm512_maskz_loadu_ps(m, u)) : s;
}

void pl_silu_avx512(const float *g, const float *u, int64_t n, float *y) {
  for (int64_t i = 0; i < n; i += 16) {
    __mmask16 m = up_to(n - i);
    __m512 v = _mm512_maskz_loadu_ps(m, g + i);
    _mm512_mask_storeu_ps(y + i, m, gated(v, negated(v), u + i, m));
  }
}

void pl_gelu_avx512(const float *g, const float *u, int64_t n, float *y) {
  const __m512 k1 = _mm512_set1_ps(-PL_GELU_1), k3 = _mm512_set1_ps(-PL_GELU_3);
  for (int64_t i = 0; i < n; i += 16) {
    __mmask16 m = up_to(n - i);
    __m512 v = _mm512_maskz_loadu_ps(m, g + i);
    __m512 z = _mm512_mul_ps(v, _mm512_fmadd_ps(k3, _mm512_mul_ps(v, v), k1));
    _mm512_mask_storeu_ps(y + i, m, gated(v, z, u ? u + i : NULL, m));
  }
}
