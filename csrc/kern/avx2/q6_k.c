#include "kern/avx2/mm.h"

/* Per 256 values of 16 rows: 16 scales, then per 32 values: 16 scale codes of the first 16 and 16 of the last 16,
 * 2 lines of upper bits, 4 nibble lines. Bits 2g and 2g+1 of byte i of lane r in upper line h belong to value 16h
 * + 4g + i of row r. As large as the source. */
enum { SUB = 32 + 128 + 256, BLOCK = 32 + 8 * SUB };

int64_t pl_panel_bytes_Q6_K_avx2(int64_t k) { return round64(k / 256 * BLOCK); }

void pl_pack_Q6_K_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q6_K_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q6_K *w = (const pl_block_q6_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      PL_UNROLL for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 32 + j * SUB;
        s[r] = (uint8_t)w->scales[2 * j];
        s[16 + r] = (uint8_t)w->scales[2 * j + 1];
        const uint8_t *ql = w->ql + j / 4 * 64 + j % 2 * 32;
        put_words(s + 160 + 4 * r,
                  nibbles(_mm_loadu_si128((const void *)ql), _mm_loadu_si128((const void *)(ql + 16)), j % 4 / 2));
        put_two_bits(s + 32 + 4 * r, _mm256_srli_epi16(load(w->qh + j / 4 * 32), j % 4 * 2));
      }
    }
}

/* The upper two bits of quad g of an upper line, in bits 4 and 5. */
PL_INLINE __m256i upper(__m256i line, int g) {
  __m256i at4 = g < 2 ? _mm256_slli_epi16(line, 4 - 2 * g) : _mm256_srli_epi16(line, 2 * g - 4);
  return _mm256_and_si256(at4, _mm256_set1_epi8(48));
}

/* idot = sc0 * (first 16) + sc1 * (last 16) - 32 * (sc0 * h0 + sc1 * h1): two sums of two products of at most 63 *
 * 128 fit in int16, and the scale takes the place of the ones that would widen them. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  const __m256i low = _mm256_set1_epi8(15);
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    __m256 d0 = half8(w), d1 = half8(w + 16);
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      __m256i idot[4][2];
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        PL_UNROLL for (int h = 0; h < 2; h++) {
          __m256i sc = same_pairs(sbytes8(w + 16 * hi + 8 * h)), up = load(w + 32 + 64 * hi + 32 * h);
          PL_UNROLL for (int g = 0; g < 4; g += 2) {
            __m256i u = load(w + 160 + 64 * g + 32 * h), v = load(w + 224 + 64 * g + 32 * h);
            if (hi) u = _mm256_srli_epi16(u, 4), v = _mm256_srli_epi16(v, 4);
            u = _mm256_or_si256(_mm256_and_si256(u, low), upper(up, g));
            v = _mm256_or_si256(_mm256_and_si256(v, low), upper(up, g + 1));
            PL_UNROLL for (int t = 0; t < NT; t++) {
              const pl_q8 *x = act(a, stride, t, b + j);
              __m256i s = _mm256_maddubs_epi16(u, quad(x, 4 * hi + g));
              s = _mm256_add_epi16(s, _mm256_maddubs_epi16(v, quad(x, 4 * hi + g + 1)));
              s = _mm256_madd_epi16(s, sc);
              idot[t][h] = hi || g ? _mm256_add_epi32(idot[t][h], s) : s;
              PL_PIN(idot[t][h]);
            }
          }
        }
      }
      PL_UNROLL for (int h = 0; h < 2; h++) {
        /* pairs (-32 sc0, -32 sc1) against (h0, h1) */
        __m256i z = _mm256_mullo_epi16(pairs(sbytes8(w + 8 * h), sbytes8(w + 16 + 8 * h)), _mm256_set1_epi16(-32));
        PL_UNROLL for (int t = 0; t < NT; t++) {
          const pl_q8 *x = act(a, stride, t, b + j);
          __m256i i = _mm256_add_epi32(idot[t][h], _mm256_madd_epi16(bcast4(x->h), z));
          acc[t][h] = scaled(i, h ? d1 : d0, _mm256_set1_ps(x->d), acc[t][h]);
        }
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q6_K, avx2)
