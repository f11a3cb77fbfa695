/* transpose.h: plain rows of numbers to panels [k][16]. */
#ifndef PL_AVX2_TRANSPOSE_H
#define PL_AVX2_TRANSPOSE_H
#include <immintrin.h>

#include "kern/tile.h"

/* p [8][16] from columns i .. i+7 of 8 rows of float, the first n of which exist. */
PL_INLINE void transpose_f32(const uint8_t *rows, int64_t row_bytes, int n, int64_t i, float *p) {
  __m256 a[8], b[8];
  PL_UNROLL for (int r = 0; r < 8; r++) {
    const float *w = (const void *)(rows + r * row_bytes);
    a[r] = r < n ? _mm256_loadu_ps(w + i) : _mm256_setzero_ps();
  }
  PL_UNROLL for (int r = 0; r < 8; r += 2) { /* pairs of rows: columns 0 1 4 5, then 2 3 6 7 */
    b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
    b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
  }
  PL_UNROLL for (int r = 0; r < 8; r += 4) { /* fours of rows: a[r + c] has columns c and c + 4 */
    a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44);
    a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xee);
    a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44);
    a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xee);
  }
  PL_UNROLL for (int c = 0; c < 4; c++) {
    _mm256_storeu_ps(p + c * PL_PANEL, _mm256_permute2f128_ps(a[c], a[4 + c], 0x20));
    _mm256_storeu_ps(p + (4 + c) * PL_PANEL, _mm256_permute2f128_ps(a[c], a[4 + c], 0x31));
  }
}

/* The same of 16-bit numbers. */
PL_INLINE void transpose_u16(const uint8_t *rows, int64_t row_bytes, int n, int64_t i, uint16_t *p) {
  __m128i a[8], b[8];
  PL_UNROLL for (int r = 0; r < 8; r++) {
    const uint16_t *w = (const void *)(rows + r * row_bytes);
    a[r] = r < n ? _mm_loadu_si128((const void *)(w + i)) : _mm_setzero_si128();
  }
  PL_UNROLL for (int r = 0; r < 8; r += 2) { /* pairs of rows: columns 0 .. 3, then 4 .. 7 */
    b[r] = _mm_unpacklo_epi16(a[r], a[r + 1]);
    b[r + 1] = _mm_unpackhi_epi16(a[r], a[r + 1]);
  }
  PL_UNROLL for (int r = 0; r < 8; r += 4) { /* fours of rows: a[r + c] has columns 2c and 2c + 1 */
    a[r] = _mm_unpacklo_epi32(b[r], b[r + 2]);
    a[r + 1] = _mm_unpackhi_epi32(b[r], b[r + 2]);
    a[r + 2] = _mm_unpacklo_epi32(b[r + 1], b[r + 3]);
    a[r + 3] = _mm_unpackhi_epi32(b[r + 1], b[r + 3]);
  }
  PL_UNROLL for (int c = 0; c < 4; c++) {
    _mm_storeu_si128((void *)(p + 2 * c * PL_PANEL), _mm_unpacklo_epi64(a[c], a[4 + c]));
    _mm_storeu_si128((void *)(p + (2 * c + 1) * PL_PANEL), _mm_unpackhi_epi64(a[c], a[4 + c]));
  }
}

/* The pack kernel of a float type of this width. */
#define PL_PACK_FLOAT(type, number, transpose)                                                         \
  void pl_pack_##type##_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) { \
    number *p = panel;                                                                                 \
    int64_t i = 0;                                                                                     \
    for (; i + 8 <= k; i += 8)                                                                         \
      for (int r = 0; r < PL_PANEL; r += 8)                                                            \
        transpose((const uint8_t *)src + r * row_bytes, row_bytes, nr - r, i, p + i * PL_PANEL + r);   \
    for (; i < k; i++)                                                                                 \
      for (int r = 0; r < PL_PANEL; r++)                                                               \
        p[i * PL_PANEL + r] =                                                                          \
            r < nr ? ((const number *)(const void *)((const uint8_t *)src + r * row_bytes))[i] : 0;    \
  }

#endif
