#include "kern/avx2/attn.h"

/* R queries of a panel against NB blocks of 16 keys. */
PL_INLINE void tile(const float *q, const void *const *k, int32_t hd, float scale, float *s,
                    const void *const *ahead, const int type, const int R, const int NB) {
  const uint8_t *block[4];
  __m256 acc[4][8], x[4];
  PL_UNROLL for (int b = 0; b < NB; b++) block[b] = k[b];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 2 * NB; h++) acc[r][h] = _mm256_setzero_ps();
  for (int64_t d = 0; d < hd; d++, q += 8) {
    PL_UNROLL for (int b = 0; b < NB; b += 2) fetch(ahead[NB == 1 ? 0 : b + d % 2], d / 2);
    PL_UNROLL for (int r = 0; r < R; r++) x[r] = _mm256_set1_ps(q[r]);
    PL_UNROLL for (int h = 0; h < 2 * NB; h++) {
      __m256 key = widen8(block[h / 2] + (d * PL_PAGE + 8 * (h % 2)) * width(type), type);
      PL_UNROLL for (int r = 0; r < R; r++) {
        acc[r][h] = _mm256_fmadd_ps(x[r], key, acc[r][h]);
        PL_PIN(acc[r][h]);
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 2 * NB; h++)
      _mm256_storeu_ps(s + r * PL_CHUNK + 8 * h, _mm256_mul_ps(acc[r][h], _mm256_set1_ps(scale)));
}

/* All queries against one block: half panels. */
PL_INLINE void panels(const float *q, int32_t nq, const void *const *k, int32_t hd, float scale, float *s,
                      const void *const *ahead, const int type) {
  for (int32_t r = 0; r < nq; r += 4, s += 4 * PL_CHUNK, ahead = k) {
    const float *x = q + (int64_t)(r / 8 * hd) * 8 + r % 8;
    if (nq - r >= 4) tile(x, k, hd, scale, s, ahead, type, 4, 1);
    PL_ROWS(nq - r, R, 4, tile(x, k, hd, scale, s, ahead, type, R, 1))
  }
}

/* With few queries several blocks at a time, so that there are enough chains of additions to work on. */
#define QK(type)                                                                                                 \
  void pl_qk_##type##_avx2(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale, \
                           float *s, const void *const *ahead) {                                                 \
    if (nq == 1)                                                                                                 \
      for (; nb >= 4; nb -= 4, k += 4, ahead += 4, s += 4 * PL_PAGE)                                             \
        tile(q, k, hd, scale, s, ahead, PL_##type, 1, 4);                                                        \
    if (nq <= 3)                                                                                                 \
      for (; nb >= 2; nb -= 2, k += 2, ahead += 2, s += 2 * PL_PAGE)                                             \
        PL_ROWS(nq, R, 4, tile(q, k, hd, scale, s, ahead, PL_##type, R, 2))                                      \
    for (; nb; nb--, k++, ahead++, s += PL_PAGE) panels(q, nq, k, hd, scale, s, ahead, PL_##type);               \
  }
QK(F32)
QK(F16)
QK(BF16)
