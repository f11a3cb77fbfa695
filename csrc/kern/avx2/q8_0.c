#include "kern/avx2/mm.h"

/* Per 32 values of 16 rows: 16 scales, 8 lines of bytes (one per quad). As large as the source. */
enum { BLOCK = 16 * sizeof(pl_block_q8_0) };

int64_t pl_panel_bytes_Q8_0_avx2(int64_t k) { return round64(k / 32 * BLOCK); }

void pl_pack_Q8_0_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q8_0_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 32; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q8_0 *w = (const pl_block_q8_0 *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      for (int q = 0; q < 8; q++) copy4(p + 32 + 64 * q + 4 * r, w->qs + 4 * q);
    }
}

/* |w| times sign(w) x: |w| <= 128 and |x| <= 127, so a pair's sum fits in int16, but only one. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {
    fetch_ahead(w, BLOCK);
    __m256i idot[4][2];
    PL_UNROLL for (int q = 0; q < 8; q++) {
      __m256i w0 = load(w + 32 + 64 * q), w1 = load(w + 64 + 64 * q);
      __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
      PL_UNROLL for (int t = 0; t < NT; t++) {
        __m256i x = quad(act(a, stride, t, b), q);
        add_signed(&idot[t][0], w0, m0, x, q == 0);
        add_signed(&idot[t][1], w1, m1, x, q == 0);
        PL_PIN(idot[t][0]);
        PL_PIN(idot[t][1]);
      }
    }
    __m256 d0 = half8(w), d1 = half8(w + 16);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      __m256 da = _mm256_set1_ps(act(a, stride, t, b)->d);
      acc[t][0] = scaled(idot[t][0], d0, da, acc[t][0]);
      acc[t][1] = scaled(idot[t][1], d1, da, acc[t][1]);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q8_0, avx2)
