#include "kern/avx2/attn.h"

/* R rows of scores times 8 ND values of each key; the outputs stay in registers while the keys go by. */
PL_INLINE void tile(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, int32_t d, float *o,
                    const void *const *ahead, const int type, const int R, const int ND) {
  __m256 acc[4][8];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < ND; i++) acc[r][i] =
      _mm256_loadu_ps(o + (int64_t)r * hdp + d + 8 * i);
  while (j0 < j1) {
    const int32_t page = j0 / PL_PAGE, end = page_end(j0, j1);
    const int64_t at = ((int64_t)(j0 % PL_PAGE) * hdp + d) * width(type);
    const uint8_t *row = (const uint8_t *)v[page] + at, *next = (const uint8_t *)ahead[page] + at;
    for (; j0 < end; j0++, row += hdp * width(type), next += hdp * width(type)) {
      PL_UNROLL for (int i = 0; i < 8 * ND * width(type); i += 64) fetch(next, i / 64);
      __m256 w[4];
      PL_UNROLL for (int r = 0; r < R; r++) w[r] = _mm256_set1_ps(p[r * PL_CHUNK + j0]);
      PL_UNROLL for (int i = 0; i < ND; i++) {
        __m256 x = widen8(row + 8 * i * width(type), type);
        PL_UNROLL for (int r = 0; r < R; r++) {
          acc[r][i] = _mm256_fmadd_ps(w[r], x, acc[r][i]);
          PL_PIN(acc[r][i]);
        }
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < ND; i++)
      _mm256_storeu_ps(o + (int64_t)r * hdp + d + 8 * i, acc[r][i]);
}

PL_INLINE void rows(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, float *o,
                    const void *const *ahead, const int type, const int R) {
  int32_t d = 0;
  if (R == 1)
    for (; d + 64 <= hdp; d += 64) tile(p, v, j0, j1, hdp, d, o, ahead, type, R, 8);
  if (R <= 3)
    for (; d + 32 <= hdp; d += 32) tile(p, v, j0, j1, hdp, d, o, ahead, type, R, 4);
  for (; d < hdp; d += 16) tile(p, v, j0, j1, hdp, d, o, ahead, type, R, 2);
}

PL_AV(F32, avx2, 4, 4)
PL_AV(F16, avx2, 4, 4)
PL_AV(BF16, avx2, 4, 4)
