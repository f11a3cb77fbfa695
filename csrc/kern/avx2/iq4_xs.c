#include "kern/avx2/mm.h"
#include "kern/ref/scale_k.h"

/* Per 256 values of 16 rows: 16 scales, then per 32 values: 16 bytes of scale codes, 4 nibble lines. The 6-bit codes
 * become bytes: 2208 bytes for 2176. */
enum { SUB = 16 + 256, BLOCK = 32 + 8 * SUB };

int64_t pl_panel_bytes_IQ4_XS_avx2(int64_t k) { return round64(k / 256 * BLOCK); }

void pl_pack_IQ4_XS_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  memset(panel, 0, (size_t)pl_panel_bytes_IQ4_XS_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_iq4_xs *w = (const pl_block_iq4_xs *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      PL_UNROLL for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 32 + j * SUB;
        s[r] = (uint8_t)scale_iq4_xs(w, j);
        for (int g = 0; g < 4; g++) copy4(s + 16 + 64 * g + 4 * r, w->qs + 16 * j + 4 * g);
      }
    }
}

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      __m256i idot[4][2];
      dot_iq4(w + 16, a, stride, b + j, idot, NT);
      __m256 d0 = _mm256_mul_ps(half8(block), _mm256_cvtepi32_ps(sbytes8(w)));
      __m256 d1 = _mm256_mul_ps(half8(block + 16), _mm256_cvtepi32_ps(sbytes8(w + 8)));
      PL_UNROLL for (int t = 0; t < NT; t++) {
        __m256 da = _mm256_set1_ps(act(a, stride, t, b + j)->d);
        acc[t][0] = scaled(idot[t][0], d0, da, acc[t][0]);
        acc[t][1] = scaled(idot[t][1], d1, da, acc[t][1]);
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(IQ4_XS, avx2)
