#include "kern/avx2/attn.h"

/* Four values, quad g (0..7) of block b, of keys 4i .. 4i+3 as int16. */
PL_INLINE __m256i keys(const uint8_t *codes, int32_t b, int g, int i, const int type) {
  if (type == PL_Q8_0)
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(codes + (b * 8 + g) * 64 + 16 * i)));
  __m128i v = _mm_loadu_si128((const void *)(codes + (b * 4 + g / 2) * 64 + 16 * i));
  v = _mm_and_si128(g % 2 ? _mm_srli_epi16(v, 4) : v, _mm_set1_epi8(15));
  return _mm256_cvtepi8_epi16(_mm_sub_epi8(v, _mm_set1_epi8(8)));
}

/* R queries against one block of 16 keys, each sum starting from `from` [R][16], times what makes it a score
 * (or, where that is 0, left as it is). Lanes hold sums of two of a key's four values each until they are folded. */
PL_INLINE void tile(const pl_q16 *q, const uint8_t *k, int32_t hd, float scale, const float *from, float *s,
                    int64_t stride, const uint8_t *ahead, const int type, const int R) {
  const int32_t n = hd / 32, lines = fetched(type);
  const int64_t bytes = code_bytes(type, hd * PL_PAGE);
  __m256 acc[3][2];
  PL_UNROLL for (int r = 0; r < R; r++) acc[r][0] = acc[r][1] = _mm256_set1_ps(from[r * PL_PAGE]);
  for (int32_t b = 0; b < n; b++) {
    __m256i sum[3][4];
    for (int32_t i = 0; i < lines; i++) fetch(ahead, b * lines + i);
    PL_UNROLL for (int g = 0; g < 8; g++) {
      __m256i x[3];
      PL_UNROLL for (int r = 0; r < R; r++) {
        int64_t four;
        memcpy(&four, q[r * n + b].c + 4 * g, 8);
        x[r] = _mm256_set1_epi64x(four);
      }
      PL_UNROLL for (int i = 0; i < 4; i++) {
        __m256i key = keys(k, b, g, i, type);
        PL_UNROLL for (int r = 0; r < R; r++) {
          __m256i p = _mm256_madd_epi16(key, x[r]);
          sum[r][i] = g ? _mm256_add_epi32(sum[r][i], p) : p;
          PL_PIN(sum[r][i]);
        }
      }
    }
    PL_UNROLL for (int h = 0; h < 2; h++) {
      __m256 d = half8(k + bytes + b * PL_PAGE * 2 + 16 * h);
      PL_UNROLL for (int r = 0; r < R; r++) {
        __m256i idot = _mm256_permute4x64_epi64(_mm256_hadd_epi32(sum[r][2 * h], sum[r][2 * h + 1]), 0xd8);
        acc[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(idot), d, acc[r][h]);
      }
    }
  }
  PL_UNROLL for (int r = 0; r < R; r++) PL_UNROLL for (int h = 0; h < 2; h++)
      _mm256_storeu_ps(s + r * stride + 8 * h,
                       scale != 0 ? _mm256_mul_ps(acc[r][h], _mm256_set1_ps(q[r * n].d * scale)) : acc[r][h]);
}

PL_QK_BLOCKS(3)
PL_QK_QUANT(Q8_0, avx2)
PL_QK_QUANT(Q4_0, avx2)
