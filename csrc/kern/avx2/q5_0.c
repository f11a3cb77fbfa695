#include "kern/avx2/mm.h"

/* Per 32 values of 16 rows: 16 scales, 1 line of 5th bits, 4 nibble lines. As large as the source. */
enum { BLOCK = 16 * sizeof(pl_block_q5_0) };

int64_t pl_panel_bytes_Q5_0_avx2(int64_t k) { return round64(k / 32 * BLOCK); }

void pl_pack_Q5_0_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q5_0_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 32; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q5_0 *w = (const pl_block_q5_0 *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      put_fifth_bits(w->qh, p + 32 + 4 * r);
      for (int g = 0; g < 4; g++) copy4(p + 96 + 64 * g + 4 * r, w->qs + 4 * g);
    }
}

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {
    fetch_ahead(w, BLOCK);
    __m256i idot[4][2];
    dot_u5(w + 32, a, stride, b, idot, NT);
    __m256 d0 = half8(w), d1 = half8(w + 16);
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
PL_MM(Q5_0, avx2)
