/* exp.h: pl_exp of 16 floats, and what goes with it. */
#ifndef PL_AVX512_EXP_H
#define PL_AVX512_EXP_H
#include <immintrin.h>

#include "kern/kern.h"

/* The lanes below n. */
static inline __mmask16 up_to(int64_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

/* The operand order of max and min lets NaN through. */
static inline __m512 exp16(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(PL_EXP_LO), x);
  x = _mm512_min_ps(_mm512_set1_ps(PL_EXP_HI), x);
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(PL_LOG2E)),
                                  _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(PL_LN2_HI), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(PL_LN2_LO), r);
  __m512 p = _mm512_set1_ps(1.3888889e-3f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3333333e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1666667e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666667e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n); /* rounds once, as two exact steps and one rounded one do */
}

/* pl_tree16 of one register. */
static inline float tree16(__m512 v) {
  __m256 b = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

#endif
