#include "base/half.h"
#include "kern/avx2/mm.h"

/* Stages of width 1, 2 and 4: each pair exchanged, plus the values themselves, negated in its upper half. */
PL_INLINE __m256 butterfly(__m256 v, __m256 exchanged, int upper) {
  const __m256i sign = _mm256_set1_epi32((int)0x80000000), lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256i negate = _mm256_cmpgt_epi32(_mm256_and_si256(lane, _mm256_set1_epi32(upper)), _mm256_setzero_si256());
  return _mm256_add_ps(exchanged, _mm256_xor_ps(v, _mm256_castsi256_ps(_mm256_and_si256(negate, sign))));
}

void pl_rotate_avx2(float *x, int32_t n, int32_t h) {
  for (int32_t i = 0; i < n; i += 8) {
    __m256 v = _mm256_loadu_ps(x + i);
    v = butterfly(v, _mm256_permute_ps(v, 0xb1), 1);
    v = butterfly(v, _mm256_permute_ps(v, 0x4e), 2);
    _mm256_storeu_ps(x + i, butterfly(v, _mm256_permute2f128_ps(v, v, 1), 4));
  }
  for (int32_t w = 8; w < h; w *= 2)
    for (int32_t i = 0; i < n; i += 2 * w)
      for (int32_t j = i; j < i + w; j += 8) {
        __m256 a = _mm256_loadu_ps(x + j), b = _mm256_loadu_ps(x + j + w);
        _mm256_storeu_ps(x + j, _mm256_add_ps(a, b));
        _mm256_storeu_ps(x + j + w, _mm256_sub_ps(a, b));
      }
}

/* max|x| of n values, a multiple of 8, NaN passed over. */
PL_INLINE float largest(const float *x, int32_t n) {
  __m256 top = _mm256_setzero_ps(); /* max(a, b) keeps b where a is NaN */
  for (int32_t i = 0; i < n; i += 8)
    top = _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_loadu_ps(x + i)), top);
  __m128 t = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
  t = _mm_max_ps(t, _mm_movehl_ps(t, t));
  return _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
}

/* 16 of int32 as int16, and of int16 as int8, in order. */
PL_INLINE __m256i narrow16(__m256i a, __m256i b) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}
PL_INLINE __m256i narrow8(__m256i a, __m256i b) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
}

void pl_quant16_avx2(const float *x, int32_t n, pl_q16 *q) {
  float amax = largest(x, n);
  const __m256 inv = _mm256_set1_ps(amax > 0 ? 32639.0f / amax : 0.0f), sign = _mm256_set1_ps(-0.0f);
  for (int32_t b = 0; b < n / 32; b++, q++, x += 32) {
    __m256i c[4];
    for (int i = 0; i < 4; i++) {
      __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inv);
      __m256 fine = _mm256_cmp_ps(_mm256_andnot_ps(sign, v), _mm256_set1_ps(32639.5f), _CMP_LT_OQ);
      c[i] = _mm256_cvtps_epi32(_mm256_blendv_ps(_mm256_set1_ps(-32639.0f), v, fine));
    }
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(c[0], c[1]), _mm256_add_epi32(c[2], c[3]));
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    s = _mm_hadd_epi32(s, s);
    __m256i c0 = narrow16(c[0], c[1]), c1 = narrow16(c[2], c[3]);
    const __m256i half = _mm256_set1_epi16(128), byte = _mm256_set1_epi16(255);
    __m256i h0 = _mm256_srai_epi16(_mm256_add_epi16(c0, half), 8),
            h1 = _mm256_srai_epi16(_mm256_add_epi16(c1, half), 8);
    __m256i lo = _mm256_packus_epi16(_mm256_and_si256(c0, byte), _mm256_and_si256(c1, byte));
    q->d = amax / 32639.0f;
    q->sum = _mm_cvtsi128_si32(s) + _mm_extract_epi32(s, 1);
    _mm256_storeu_si256((void *)q->c, c0);
    _mm256_storeu_si256((void *)(q->c + 16), c1);
    _mm256_storeu_si256((void *)q->hi, narrow8(h0, h1));
    _mm256_storeu_si256((void *)q->lo, _mm256_permute4x64_epi64(lo, 0xd8));
  }
}

void pl_code8_avx2(const float *x, int32_t n, int8_t *q, uint16_t *d) {
  for (int32_t b = 0; b < n / 32; b++, x += 32, q += 32) {
    d[b] = pl_f32_f16(largest(x, 32) / 127.0f);
    float scale = pl_f16_f32(d[b]);
    const __m256 inv = _mm256_set1_ps(scale > 0 ? 1.0f / scale : 0);
    __m256i c[4];
    for (int i = 0; i < 4; i++) { /* max(a, b) gives b where a is NaN */
      __m256 v = _mm256_max_ps(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inv), _mm256_set1_ps(-127.0f));
      c[i] = _mm256_cvtps_epi32(_mm256_min_ps(v, _mm256_set1_ps(127.0f)));
    }
    _mm256_storeu_si256((void *)q, narrow8(narrow16(c[0], c[1]), narrow16(c[2], c[3])));
  }
}

/* Codes of 8 values, from -8 to 7, as floats: rounded to nearest as `nearest` of ref does. */
PL_INLINE __m256 codes8(__m256 x, __m256 inv) {
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  __m256 v = _mm256_max_ps(_mm256_mul_ps(x, inv), _mm256_set1_ps(-8.0f)); /* max(a, b) gives b where a is NaN */
  return _mm256_sub_ps(_mm256_add_ps(_mm256_min_ps(v, _mm256_set1_ps(7.0f)), magic), magic);
}

void pl_code4_avx2(const float *x, int32_t n, uint8_t *q, uint16_t *d) {
  const __m256 sign = _mm256_set1_ps(-0.0f), zero = _mm256_setzero_ps();
  const __m256 parts = _mm256_setr_ps(-7.5f, -8.0f, -8.5f, -9.0f, -9.5f, -10.0f, -10.5f, -11.0f);
  for (int32_t b = 0; b < n / 32; b++, x += 32, q += 32) {
    const float amax = largest(x, 32);
    uint32_t equal = 0;
    __m256 v[4];
    for (int i = 0; i < 4; i++) {
      v[i] = _mm256_loadu_ps(x + 8 * i);
      __m256 is_top = _mm256_cmp_ps(_mm256_andnot_ps(sign, v[i]), _mm256_set1_ps(amax), _CMP_EQ_OQ);
      equal |= (uint32_t)_mm256_movemask_ps(is_top) << 8 * i;
    }
    const float top = amax > 0 ? x[__builtin_ctz(equal)] : 0;
    _Alignas(16) uint16_t half[8];
    _Alignas(32) float scale[8], inv[8];
    __m128i h = _mm256_cvtps_ph(_mm256_div_ps(_mm256_set1_ps(top), parts), _MM_FROUND_TO_NEAREST_INT);
    __m256 s = _mm256_cvtph_ps(h), one = _mm256_div_ps(_mm256_set1_ps(1.0f), s);
    _mm_store_si128((void *)half, h);
    _mm256_store_ps(scale, s);
    _mm256_store_ps(inv, _mm256_and_ps(one, _mm256_cmp_ps(s, zero, _CMP_NEQ_UQ)));
    float best = INFINITY;
    int at = -1;
    for (int k = 0; k < 8; k++) {
      __m256 err = zero, c = _mm256_set1_ps(inv[k]), w = _mm256_set1_ps(scale[k]);
      for (int i = 0; i < 4; i++) {
        __m256 e = _mm256_sub_ps(v[i], _mm256_mul_ps(codes8(v[i], c), w));
        err = _mm256_add_ps(err, _mm256_mul_ps(e, e));
      }
      __m128 t = _mm_add_ps(_mm256_castps256_ps128(err), _mm256_extractf128_ps(err, 1));
      t = _mm_add_ps(t, _mm_movehdup_ps(t));
      float sum = _mm_cvtss_f32(_mm_add_ss(t, _mm_movehl_ps(t, t)));
      if (sum < best) best = sum, at = k;
    }
    d[b] = at < 0 ? 0 : half[at];
    __m256i c[4];
    for (int i = 0; i < 4; i++) {
      __m256 code = at < 0 ? zero : codes8(v[i], _mm256_set1_ps(inv[at]));
      c[i] = _mm256_cvttps_epi32(_mm256_add_ps(code, _mm256_set1_ps(8.0f)));
    }
    _mm256_storeu_si256((void *)q, narrow8(narrow16(c[0], c[1]), narrow16(c[2], c[3])));
  }
}
