#include "kern/avx2/mm.h"
#include "kern/ref/scale_k.h"

/* Per 256 values of 16 rows: 16 scales, 16 scales of the minimums, then per 32 values: 16 bytes of scale codes, 16
 * of minimum codes, 4 nibble lines. The 6-bit codes become bytes: 2368 bytes for 2304. */
enum { SUB = 288, BLOCK = 64 + 8 * SUB };

int64_t pl_panel_bytes_Q4_K_avx2(int64_t k) { return k / 256 * BLOCK; }

void pl_pack_Q4_K_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q4_K_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q4_K *w = (const pl_block_q4_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      copy2(p + 32 + 2 * r, &w->dmin);
      PL_UNROLL for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 64 + j * SUB;
        scale_min(w->scales, j, &s[r], &s[16 + r]);
        __m128i a = _mm_loadu_si128((const void *)(w->qs + j / 2 * 32));
        __m128i b = _mm_loadu_si128((const void *)(w->qs + j / 2 * 32 + 16));
        put_words(s + 32 + 4 * r, nibbles(a, b, j % 2));
      }
    }
}

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 64;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      __m256i idot[4][2];
      dot_u4(w + 32, a, stride, b + j, idot, NT);
      __m256 d0 = _mm256_mul_ps(half8(block), byte8(w)), d1 = _mm256_mul_ps(half8(block + 16), byte8(w + 8));
      __m256 m0 = _mm256_mul_ps(half8(block + 32), byte8(w + 16));
      __m256 m1 = _mm256_mul_ps(half8(block + 48), byte8(w + 24));
      PL_UNROLL for (int t = 0; t < NT; t++) {
        const pl_q8 *x = act(a, stride, t, b + j);
        __m256 da = _mm256_set1_ps(x->d), sa = _mm256_set1_ps(x->s);
        acc[t][0] = _mm256_fnmadd_ps(m0, sa, scaled(idot[t][0], d0, da, acc[t][0]));
        acc[t][1] = _mm256_fnmadd_ps(m1, sa, scaled(idot[t][1], d1, da, acc[t][1]));
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q4_K, avx2)
