#include "kern/avx2/mm.h"
#include "kern/ref/scale_k.h"

/* Per 256 values of 16 rows: 16 scales, then per 32 values: 16 scale codes of the first 16 and 16 of the last 16, 3
 * lines of codes. Quads 0 and 1, 2 and 3, 4 and 5 are bits 0..2 and 3..5 of the lines; the two low bits of quads 6
 * and 7 are bits 6..7 of the first and second, their high bits bits 6 and 7 of the third. The 6-bit scale codes
 * become bytes: 1824 bytes for 1760. */
enum { SUB = 32 + 192, BLOCK = 32 + 8 * SUB };

int64_t pl_panel_bytes_Q3_K_avx2(int64_t k) { return round64(k / 256 * BLOCK); }

void pl_pack_Q3_K_avx2(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  memset(panel, 0, (size_t)pl_panel_bytes_Q3_K_avx2(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q3_K *w = (const pl_block_q3_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      PL_UNROLL for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 32 + j * SUB;
        s[r] = (uint8_t)scale_q3(w->scales, 2 * j);
        s[16 + r] = (uint8_t)scale_q3(w->scales, 2 * j + 1);
        __m256i two =
            _mm256_and_si256(_mm256_srli_epi16(load(w->qs + j / 4 * 32), j % 4 * 2), _mm256_set1_epi8(3));
        __m256i one = _mm256_and_si256(_mm256_srli_epi16(load(w->hmask), j), _mm256_set1_epi8(1));
        uint32_t q[8], line[3];
        _mm256_storeu_si256((void *)q, _mm256_or_si256(two, _mm256_slli_epi16(one, 2)));
        line[0] = q[0] | q[1] << 3 | (q[6] & 0x03030303) << 6;
        line[1] = q[2] | q[3] << 3 | (q[7] & 0x03030303) << 6;
        line[2] = q[4] | q[5] << 3 | (q[6] & 0x04040404) << 4 | (q[7] & 0x04040404) << 5;
        for (int i = 0; i < 3; i++) copy4(s + 32 + 64 * i + 4 * r, &line[i]);
      }
    }
}

/* Quad q of half of three lines. */
PL_INLINE __m256i code(const uint8_t *lines, int q) {
  if (q < 6) return _mm256_and_si256(_mm256_srli_epi16(load(lines + q / 2 * 64), q % 2 * 3), _mm256_set1_epi8(7));
  __m256i two = _mm256_and_si256(_mm256_srli_epi16(load(lines + (q - 6) * 64), 6), _mm256_set1_epi8(3));
  return _mm256_or_si256(two, _mm256_and_si256(_mm256_srli_epi16(load(lines + 128), q - 2), _mm256_set1_epi8(4)));
}

/* idot = sc0 * (first 16) + sc1 * (last 16) - 4 * (sc0 * h0 + sc1 * h1): four sums of two products of at most 7 *
 * 128 fit in int16, and the scale takes the place of the ones that would widen them. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      fetch_ahead(w, SUB);
      const __m256i s0[2] = {sbytes8(w), sbytes8(w + 8)}, s1[2] = {sbytes8(w + 16), sbytes8(w + 24)};
      __m256i idot[4][2];
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        __m256i sum[4][2];
        PL_UNROLL for (int q = 4 * hi; q < 4 * hi + 4; q++) {
          __m256i w0 = code(w + 32, q), w1 = code(w + 64, q);
          PL_UNROLL for (int t = 0; t < NT; t++) {
            __m256i x = quad(act(a, stride, t, b + j), q);
            add_pairs(&sum[t][0], w0, x, q % 4 == 0);
            add_pairs(&sum[t][1], w1, x, q % 4 == 0);
            PL_PIN(sum[t][0]);
            PL_PIN(sum[t][1]);
          }
        }
        PL_UNROLL for (int h = 0; h < 2; h++) {
          __m256i sc = same_pairs(hi ? s1[h] : s0[h]);
          PL_UNROLL for (int t = 0; t < NT; t++) {
            __m256i s = _mm256_madd_epi16(sum[t][h], sc);
            idot[t][h] = hi ? _mm256_add_epi32(idot[t][h], s) : s;
          }
        }
      }
      PL_UNROLL for (int h = 0; h < 2; h++) {
        __m256i z = _mm256_mullo_epi16(pairs(s0[h], s1[h]), _mm256_set1_epi16(-4));
        __m256 d = half8(block + 16 * h);
        PL_UNROLL for (int t = 0; t < NT; t++) {
          const pl_q8 *x = act(a, stride, t, b + j);
          __m256i i = _mm256_add_epi32(idot[t][h], _mm256_madd_epi16(bcast4(x->h), z));
          acc[t][h] = scaled(i, d, _mm256_set1_ps(x->d), acc[t][h]);
        }
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q3_K, avx2)
