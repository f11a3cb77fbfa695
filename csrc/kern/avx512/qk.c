#include "kern/avx512/attn.h"

/* R queries of a panel against NB blocks of 16 keys. */
PL_INLINE void tile(const float *q, const void *const *k, int32_t hd, float scale, float *s,
                    const void *const *ahead, const int type, const int R, const int NB) {
  const uint8_t *block[4];
  __m512 acc[8][4], key[4];
  PL_UNROLL for (int b = 0; b < NB; b++) {
    block[b] = k[b];
    PL_UNROLL for (int r = 0; r < R; r++) acc[r][b] = _mm512_setzero_ps();
  }
  for (int64_t d = 0; d < hd; d++, q += 8) {
    PL_UNROLL for (int b = 0; b < NB; b += 2) fetch(ahead[NB == 1 ? 0 : b + d % 2], d / 2);
    PL_UNROLL for (int b = 0; b < NB; b++) key[b] = widen16(block[b] + d * PL_PAGE * width(type), type);
    PL_UNROLL for (int r = 0; r < R; r++) {
      __m512 x = _mm512_set1_ps(q[r]);
      PL_UNROLL for (int b = 0; b < NB; b++) {
        acc[r][b] = _mm512_fmadd_ps(x, key[b], acc[r][b]);
        PL_PIN(acc[r][b]);
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int b = 0; b < NB; b++)
      _mm512_storeu_ps(s + r * PL_CHUNK + b * PL_PAGE, _mm512_mul_ps(acc[r][b], _mm512_set1_ps(scale)));
}

/* All queries against NB blocks: panels of 8. */
PL_INLINE void panels(const float *q, int32_t nq, const void *const *k, int32_t hd, float scale, float *s,
                      const void *const *ahead, const int type, const int NB) {
  for (; nq >= 8; nq -= 8, q += 8 * hd, s += 8 * PL_CHUNK, ahead = k) tile(q, k, hd, scale, s, ahead, type, 8, NB);
  PL_ROWS(nq, R, 8, tile(q, k, hd, scale, s, ahead, type, R, NB))
}

/* Few queries take four blocks at a time, so that there are enough chains of additions to work on. */
#define QK(type)                                                                                      \
  void pl_qk_##type##_avx512(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, \
                             float scale, float *s, const void *const *ahead) {                       \
    if (nq <= 6)                                                                                      \
      for (; nb >= 4; nb -= 4, k += 4, ahead += 4, s += 4 * PL_PAGE)                                  \
        PL_ROWS(nq, R, 7, tile(q, k, hd, scale, s, ahead, PL_##type, R, 4))                           \
    for (; nb >= 2; nb -= 2, k += 2, ahead += 2, s += 2 * PL_PAGE)                                    \
      panels(q, nq, k, hd, scale, s, ahead, PL_##type, 2);                                            \
    if (nb) panels(q, nq, k, hd, scale, s, ahead, PL_##type, 1);                                      \
  }
QK(F32)
QK(F16)
QK(BF16)
