#include "kern/avx2/attn.h"

/* 8 codes, i (0..3) of a block of 32, as floats. */
PL_INLINE __m256 values(const uint8_t *block, int i, const int type) {
  if (type == PL_Q8_0)
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(block + 8 * i))));
  __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(block + 8 * (i % 2))));
  v = i < 2 ? _mm256_and_si256(v, _mm256_set1_epi32(15)) : _mm256_srli_epi32(v, 4);
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(v, _mm256_set1_epi32(8)));
}

/* R rows of scores times 8 ND values of each key, from the i-th eight of block b on; the outputs stay in registers
 * while the keys go by. */
PL_INLINE void tile(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, int32_t b, float *o,
                    const void *const *ahead, const int type, const int R, const int i0, const int ND) {
  const int64_t row_bytes = code_bytes(type, hdp), block_bytes = code_bytes(type, 32);
  __m256 acc[4][4];
  float *y = o + 32 * b + 8 * i0;
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < ND; i++) acc[r][i] =
      _mm256_loadu_ps(y + (int64_t)r * hdp + 8 * i);
  while (j0 < j1) {
    const int32_t page = j0 / PL_PAGE, end = page_end(j0, j1);
    const uint8_t *block = v[page], *d = block + PL_PAGE * row_bytes + b * PL_PAGE * 2;
    _Alignas(32) float w[4][PL_PAGE]; /* scores times scales */
    __m256 s0 = half8(d), s1 = half8(d + 16);
    PL_UNROLL for (int r = 0; r < R; r++) {
      const float *x = p + r * PL_CHUNK + page * PL_PAGE;
      _mm256_store_ps(w[r], _mm256_mul_ps(_mm256_loadu_ps(x), s0));
      _mm256_store_ps(w[r] + 8, _mm256_mul_ps(_mm256_loadu_ps(x + 8), s1));
    }
    for (int i = 0; i < fetched(type); i++) fetch(ahead[page], b * fetched(type) + i);
    const uint8_t *row = block + j0 % PL_PAGE * row_bytes + b * block_bytes;
    for (int32_t j = j0 % PL_PAGE; j0 < end; j0++, j++, row += row_bytes) {
      __m256 x[4];
      PL_UNROLL for (int r = 0; r < R; r++) x[r] = _mm256_set1_ps(w[r][j]);
      PL_UNROLL for (int i = 0; i < ND; i++) {
        __m256 value = values(row, i0 + i, type);
        PL_UNROLL for (int r = 0; r < R; r++) {
          acc[r][i] = _mm256_fmadd_ps(x[r], value, acc[r][i]);
          PL_PIN(acc[r][i]);
        }
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int i = 0; i < ND; i++)
      _mm256_storeu_ps(y + (int64_t)r * hdp + 8 * i, acc[r][i]);
}

PL_INLINE void rows(const float *p, const void *const *v, int32_t j0, int32_t j1, int32_t hdp, float *o,
                    const void *const *ahead, const int type, const int R) {
  for (int32_t b = 0; b < hdp / 32; b++) {
    if (R <= 3) {
      tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 0, 4);
    } else {
      tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 0, 2);
      tile(p, v, j0, j1, hdp, b, o, ahead, type, R, 2, 2);
    }
  }
}

PL_AV(Q8_0, avx2, 4, 4)
PL_AV(Q4_0, avx2, 4, 4)
