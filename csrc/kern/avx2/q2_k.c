#include "kern/avx2/mm.h"

/* Per 256 values of 16 rows: 16 scales, 16 scales of the minimums, then per 32 values: 16 bytes of scale and minimum
 * codes (low and high nibbles) of the first 16 and 16 of the last 16, a line of two-bit codes for each. Bits 2g of
 * byte i of lane r belong to value 4g + i of row r. As large as the source. */
enum { SUB = 32 + 128, BLOCK = 64 + 8 * SUB };

int64_t pl_panel_bytes_Q2_K_avx2(int64_t k) { return k / 256 * BLOCK; }

void pl_pack_Q2_K_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q2_K_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q2_K *w = (const pl_block_q2_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      copy2(p + 32 + 2 * r, &w->dmin);
      PL_UNROLL for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 64 + j * SUB;
        s[r] = w->scales[2 * j];
        s[16 + r] = w->scales[2 * j + 1];
        put_two_bits(s + 32 + 4 * r, _mm256_srli_epi16(load(w->qs + j / 4 * 32), j % 4 * 2));
      }
    }
}

/* Four sums of two products of at most 3 * 128 fit in int16, and the scale takes the place of the ones that would
 * widen them. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  const __m256i three = _mm256_set1_epi8(3), low = _mm256_set1_epi32(15);
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 64;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      const __m256i s0[2] = {bytes8(w), bytes8(w + 8)}, s1[2] = {bytes8(w + 16), bytes8(w + 24)};
      __m256i idot[4][2];
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        __m256i sum[4][2];
        PL_UNROLL for (int g = 0; g < 4; g++) {
          __m256i w0 = load(w + 32 + 64 * hi), w1 = load(w + 64 + 64 * hi);
          w0 = _mm256_and_si256(_mm256_srli_epi16(w0, 2 * g), three);
          w1 = _mm256_and_si256(_mm256_srli_epi16(w1, 2 * g), three);
          PL_UNROLL for (int t = 0; t < NT; t++) {
            __m256i x = quad(act(a, stride, t, b + j), 4 * hi + g);
            add_pairs(&sum[t][0], w0, x, g == 0);
            add_pairs(&sum[t][1], w1, x, g == 0);
            PL_PIN(sum[t][0]);
            PL_PIN(sum[t][1]);
          }
        }
        PL_UNROLL for (int h = 0; h < 2; h++) {
          __m256i sc = same_pairs(_mm256_and_si256(hi ? s1[h] : s0[h], low));
          PL_UNROLL for (int t = 0; t < NT; t++) {
            __m256i s = _mm256_madd_epi16(sum[t][h], sc);
            idot[t][h] = hi ? _mm256_add_epi32(idot[t][h], s) : s;
          }
        }
      }
      PL_UNROLL for (int h = 0; h < 2; h++) {
        __m256i m = pairs(_mm256_srli_epi32(s0[h], 4), _mm256_srli_epi32(s1[h], 4));
        __m256 d = half8(block + 16 * h), dmin = half8(block + 32 + 16 * h);
        PL_UNROLL for (int t = 0; t < NT; t++) {
          const pl_q8 *x = act(a, stride, t, b + j);
          __m256 da = _mm256_set1_ps(x->d), min = _mm256_cvtepi32_ps(_mm256_madd_epi16(bcast4(x->h), m));
          acc[t][h] = _mm256_fnmadd_ps(min, _mm256_mul_ps(dmin, da), scaled(idot[t][h], d, da, acc[t][h]));
        }
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q2_K, avx2)
