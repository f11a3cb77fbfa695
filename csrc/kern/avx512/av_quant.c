#include "kern/avx512/attn.h"

/* 32 codes as floats. */
PL_INLINE void values(const uint8_t *p, __m512 x[2], const int type) {
  if (type == PL_Q8_0) {
    x[0] = _mm512_cvtepi32_ps(sbytes16(p));
    x[1] = _mm512_cvtepi32_ps(sbytes16(p + 16));
  } else { /* the lookup takes the lower four bits of a lane */
    const __m512 value = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    __m512i v = bytes16(p);
    x[0] = _mm512_permutexvar_ps(v, value);
    x[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(v, 4), value);
  }
}

/* R rows of scores times NB blocks, from b on, of 32 values of each key; the outputs stay in registers while the keys
 * go by. */
PL_INLINE void tile(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, int32_t b, float *o,
                    const void *const *ahead, const int type, const int R, const int NB) {
  const int64_t row_bytes = code_bytes(type, hdp), block_bytes = code_bytes(type, 32);
  __m512 acc[8][4], x[4];
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < 2 * NB; i++) acc[r][i] =
      _mm512_loadu_ps(o + (int64_t)r * hdp + 32 * b + 16 * i);
  while (j0 < j1) {
    const int32_t page = j0 / PL_PAGE, end = page_end(j0, j1);
    const uint8_t *block = v[page], *d = block + PL_PAGE * row_bytes + b * PL_PAGE * 2;
    _Alignas(64) float w[8][2][PL_PAGE]; /* scores times scales */
    for (int i = 0; i < NB * fetched(type); i++) fetch(ahead[page], b * fetched(type) + i);
    PL_UNROLL for (int i = 0; i < NB; i++) {
      __m512 scale = half16(d + i * PL_PAGE * 2);
      PL_UNROLL for (int r = 0; r < R; r++)
          _mm512_store_ps(w[r][i], _mm512_mul_ps(_mm512_loadu_ps(p + r * PL_CHUNK + page * PL_PAGE), scale));
    }
    const uint8_t *row = block + j0 % PL_PAGE * row_bytes + b * block_bytes;
    for (int32_t j = j0 % PL_PAGE; j0 < end; j0++, j++, row += row_bytes) {
      PL_UNROLL for (int i = 0; i < NB; i++) values(row + i * block_bytes, x + 2 * i, type);
      PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < NB; i++) {
        __m512 y = _mm512_set1_ps(w[r][i][j]);
        acc[r][2 * i] = _mm512_fmadd_ps(y, x[2 * i], acc[r][2 * i]);
        acc[r][2 * i + 1] = _mm512_fmadd_ps(y, x[2 * i + 1], acc[r][2 * i + 1]);
        PL_PIN(acc[r][2 * i]);
        PL_PIN(acc[r][2 * i + 1]);
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < 2 * NB; i++)
      _mm512_storeu_ps(o + (int64_t)r * hdp + 32 * b + 16 * i, acc[r][i]);
}

PL_INLINE void rows(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, float *o,
                    const void *const *ahead, const int type, const int R) {
  int32_t b = 0;
  if (R <= 6)
    for (; b + 2 <= hdp / 32; b += 2) tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 2);
  for (; b < hdp / 32; b++) tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 1);
}

PL_AV(Q8_0, avx512, 8, 8)
PL_AV(Q4_0, avx512, 8, 8)
