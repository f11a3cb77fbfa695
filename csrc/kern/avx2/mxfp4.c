#include "kern/avx2/mm.h"

/* Per 32 values of 16 rows: 16 bytes of scales, 4 nibble lines. As large as the source. */
enum { BLOCK = 16 * sizeof(pl_block_mxfp4) };

int64_t pl_panel_bytes_MXFP4_avx2(int64_t k) { return round64(k / 32 * BLOCK); }

void pl_pack_MXFP4_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  memset(panel, 0, (size_t)pl_panel_bytes_MXFP4_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 32; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_mxfp4 *w = (const pl_block_mxfp4 *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      p[r] = w->e;
      for (int g = 0; g < 4; g++) copy4(p + 16 + 64 * g + 4 * r, w->qs + 4 * g);
    }
}

/* Values plus 16 are unsigned, and four sums of two products of at most 28 * 127 fit in int16. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {
    fetch_ahead(w, BLOCK);
    __m256i idot[4][2];
    PL_UNROLL for (int hi = 0; hi < 2; hi++) {
      __m256i sum[4][2];
      PL_UNROLL for (int g = 0; g < 4; g++) {
        __m256i w0 = load(w + 16 + g * 64), w1 = load(w + 16 + g * 64 + 32);
        if (hi) w0 = _mm256_srli_epi16(w0, 4), w1 = _mm256_srli_epi16(w1, 4);
        w0 = lookup(values_e2m1_16, _mm256_and_si256(w0, low));
        w1 = lookup(values_e2m1_16, _mm256_and_si256(w1, low));
        PL_UNROLL for (int t = 0; t < NT; t++) {
          __m256i x = quad(act(a, stride, t, b), 4 * hi + g);
          add_pairs(&sum[t][0], w0, x, g == 0);
          add_pairs(&sum[t][1], w1, x, g == 0);
          PL_PIN(sum[t][0]);
          PL_PIN(sum[t][1]);
        }
      }
      PL_UNROLL for (int t = 0; t < NT; t++) {
        PL_UNROLL for (int h = 0; h < 2; h++) {
          __m256i s = _mm256_madd_epi16(sum[t][h], ones);
          idot[t][h] = hi ? _mm256_add_epi32(idot[t][h], s) : s;
        }
      }
    }
    __m256 d0 = e8m0_half8(w), d1 = e8m0_half8(w + 8);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      const pl_q8 *x = act(a, stride, t, b);
      __m256 da = _mm256_set1_ps(x->d);
      __m256i z = zero_point(x, 16);
      acc[t][0] = scaled(_mm256_add_epi32(idot[t][0], z), d0, da, acc[t][0]);
      acc[t][1] = scaled(_mm256_add_epi32(idot[t][1], z), d1, da, acc[t][1]);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(MXFP4, avx2)
