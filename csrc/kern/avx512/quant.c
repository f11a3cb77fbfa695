#include <immintrin.h>

#include "kern/tile.h"

enum { BLOCKS = 16 }; /* at a time: the divisions are done for all of them at once */

/* Largest of 16, and of the lower four of each pair of fours, ... to four values. */
PL_INLINE __m128 max4(__m512 v) {
  __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}

/* 16 codes, or -127 where x * inv is not within range. */
PL_INLINE __m512i codes16(__m512 x, __m512 inv) {
  __m512 v = _mm512_mul_ps(x, inv);
  __mmask16 fine = _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(127.5f), _CMP_LT_OQ);
  return _mm512_cvtps_epi32(_mm512_mask_blend_ps(fine, _mm512_set1_ps(-127.0f), v));
}

/* n blocks of x, 16 but for the last ones; rest [n][32] what is left over, unless NULL. */
PL_INLINE void blocks(const float *x, int n, pl_q8 *y, float *rest) {
  _Alignas(64) float top[BLOCKS][4], scale[BLOCKS], inverse[BLOCKS];
  _Alignas(64) int32_t half[BLOCKS][8];
  for (int b = 0; b < n; b++) { /* max(a, b) is b where a is NaN */
    __m512 a = _mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + 32 * b)), _mm512_setzero_ps());
    _mm_store_ps(top[b], max4(_mm512_max_ps(_mm512_abs_ps(_mm512_loadu_ps(x + 32 * b + 16)), a)));
  }
  for (int b = n; b < BLOCKS; b++) _mm_store_ps(top[b], _mm_setzero_ps());
  __m512 amax = _mm512_setzero_ps(); /* of block 4 i + j at place 4 j + i */
  PL_UNROLL for (int i = 0; i < 4; i++) {
    __m512 v = _mm512_load_ps(top[4 * i]);
    v = _mm512_max_ps(v, _mm512_shuffle_ps(v, v, 0x4e));
    v = _mm512_max_ps(v, _mm512_shuffle_ps(v, v, 0xb1));
    amax = _mm512_mask_mov_ps(amax, (__mmask16)(0x1111 << i), v);
  }
  const __m512 most = _mm512_set1_ps(127.0f);
  _mm512_store_ps(scale, _mm512_div_ps(amax, most));
  _mm512_store_ps(inverse,
                  _mm512_maskz_div_ps(_mm512_cmp_ps_mask(amax, _mm512_setzero_ps(), _CMP_GT_OQ), most, amax));
  for (int b = 0; b < n; b++) {
    const int place = b % 4 * 4 + b / 4;
    const __m512 inv = _mm512_set1_ps(inverse[place]), d = _mm512_set1_ps(scale[place]);
    const __m512 x0 = _mm512_loadu_ps(x + 32 * b), x1 = _mm512_loadu_ps(x + 32 * b + 16);
    const __m512i q0 = codes16(x0, inv), q1 = codes16(x1, inv);
    const __m256i q = _mm256_setr_m128i(_mm512_cvtepi32_epi8(q0), _mm512_cvtepi32_epi8(q1));
    _mm256_storeu_si256((void *)y[b].q, q);
    _mm256_store_si256((void *)half[b], _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q));
    if (!rest) continue;
    _mm512_storeu_ps(rest + 32 * b, _mm512_fnmadd_ps(d, _mm512_cvtepi32_ps(q0), x0));
    _mm512_storeu_ps(rest + 32 * b + 16, _mm512_fnmadd_ps(d, _mm512_cvtepi32_ps(q1), x1));
  }
  for (int b = 0; b < n; b++) {
    __m128i h = _mm_hadd_epi32(_mm_load_si128((const void *)half[b]), _mm_load_si128((const void *)(half[b] + 4)));
    h = _mm_hadd_epi32(h, h);
    int32_t h0 = _mm_cvtsi128_si32(h), h1 = _mm_extract_epi32(h, 1);
    y[b].d = scale[b % 4 * 4 + b / 4];
    y[b].s = y[b].d * (float)(h0 + h1);
    y[b].h[0] = (int16_t)h0;
    y[b].h[1] = (int16_t)h1;
    y[b].z = -(h0 + h1);
  }
}

void pl_quant_avx512(const float *x, int64_t k, pl_q8 *hi, pl_q8 *lo) {
  float rest[BLOCKS * 32];
  for (int64_t b = 0; b < k / 32; b += BLOCKS) {
    int n = k / 32 - b < BLOCKS ? (int)(k / 32 - b) : BLOCKS;
    blocks(x + 32 * b, n, hi + b, lo ? rest : NULL);
    if (lo) blocks(rest, n, lo + b, NULL);
  }
}
