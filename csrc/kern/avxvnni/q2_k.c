#include "kern/avxvnni/mm.h"

/* As packed by the AVX2 room: 16 scales, 16 scales of the minimums, then per 32 values 16 + 16 codes of scales and
 * minimums, 2 lines of two-bit codes. */
enum { SUB = 32 + 128 };

/* idot = sc0 * (first 16) + sc1 * (last 16): the sums fit in int16. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 64;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      __m256i first[4][2], idot[4][2];
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        PL_UNROLL for (int t = 0; t < NT; t++) {
          if (hi) first[t][0] = idot[t][0], first[t][1] = idot[t][1];
          idot[t][0] = idot[t][1] = _mm256_setzero_si256();
        }
        PL_UNROLL for (int q = 4 * hi; q < 4 * hi + 4; q++) PL_DOT_QUAD(code_u2, w + 32, q, b + j);
      }
      PL_UNROLL for (int h = 0; h < 2; h++) {
        __m256i s = pairs(bytes8(w + 8 * h), bytes8(w + 16 + 8 * h));
        __m256i sc = _mm256_and_si256(s, _mm256_set1_epi16(15)), m = _mm256_srli_epi16(s, 4);
        __m256 d = half8(block + 16 * h), dmin = half8(block + 32 + 16 * h);
        PL_UNROLL for (int t = 0; t < NT; t++) {
          const pl_q8 *x = act(a, stride, t, b + j);
          __m256 da = _mm256_set1_ps(x->d), min = _mm256_cvtepi32_ps(_mm256_madd_epi16(bcast4(x->h), m));
          acc[t][h] = scaled(_mm256_madd_epi16(pairs(first[t][h], idot[t][h]), sc), d, da, acc[t][h]);
          acc[t][h] = _mm256_fnmadd_ps(min, _mm256_mul_ps(dmin, da), acc[t][h]);
        }
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q2_K, avxvnni)
