#include "kern/avxvnni/mm.h"

/* As packed by the AVX2 room: 16 scales, then per 32 values 16 scale codes, 4 nibble lines. */
enum { SUB = 16 + 256 };

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    __m256 d0 = half8(w), d1 = half8(w + 16);
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      __m256i idot[4][2];
      PL_DOT(code_iq4, w + 16, 128, b + j)
      __m256 s0 = _mm256_mul_ps(d0, _mm256_cvtepi32_ps(sbytes8(w)));
      __m256 s1 = _mm256_mul_ps(d1, _mm256_cvtepi32_ps(sbytes8(w + 8)));
      PL_UNROLL for (int t = 0; t < NT; t++) {
        __m256 da = _mm256_set1_ps(act(a, stride, t, b + j)->d);
        acc[t][0] = scaled(idot[t][0], s0, da, acc[t][0]);
        acc[t][1] = scaled(idot[t][1], s1, da, acc[t][1]);
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(IQ4_XS, avxvnni)
