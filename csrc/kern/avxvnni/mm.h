/* mm.h: what the AVX-VNNI matrix kernels share.
 *
 * Panels and the pieces that handle them are those of the AVX2 room (csrc/kern/avx2/mm.h): a line of 64 bytes is two
 * registers, "halves" of 8 rows of four codes. vpdpbusd multiplies unsigned codes with four broadcast bytes of the activation
 * and adds the four products to 8 exact int32 sums. Kernels of float weights stay those of the AVX2 room. */
#ifndef PL_AVXVNNI_MM_H
#define PL_AVXVNNI_MM_H
#include "kern/avx2/mm.h"

/* ---- codes: quad q of the half of 8 rows whose first line is at p ---- */

PL_INLINE __m256i code_u4(const uint8_t *p, int q) {
  __m256i v = load(p + q % 4 * 64);
  return _mm256_and_si256(q < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

/* a line of 5th bits, then nibble lines */
PL_INLINE __m256i code_u5(const uint8_t *p, int q) {
  return _mm256_or_si256(code_u4(p + 64, q), bit5(load(p), q));
}

/* two lines of upper bits, then nibble lines */
PL_INLINE __m256i code_u6(const uint8_t *p, int q) {
  __m256i up = load(p + q / 4 * 64);
  up = q % 4 < 2 ? _mm256_slli_epi16(up, 4 - q % 4 * 2) : _mm256_srli_epi16(up, q % 4 * 2 - 4);
  return _mm256_or_si256(code_u4(p + 128, q), _mm256_and_si256(up, _mm256_set1_epi8(48)));
}

/* signed bytes, made unsigned by flipping their sign bits */
PL_INLINE __m256i code_s8(const uint8_t *p, int q) {
  return _mm256_xor_si256(load(p + q * 64), _mm256_set1_epi8((char)0x80));
}

/* two lines of two-bit codes */
PL_INLINE __m256i code_u2(const uint8_t *p, int q) {
  return _mm256_and_si256(_mm256_srli_epi16(load(p + q / 4 * 64), q % 4 * 2), _mm256_set1_epi8(3));
}

/* three lines: quads 0 to 5 two to a line, the pieces of 6 and 7 in their upper bits */
PL_INLINE __m256i code_u3(const uint8_t *p, int q) {
  if (q < 6) return _mm256_and_si256(_mm256_srli_epi16(load(p + q / 2 * 64), q % 2 * 3), _mm256_set1_epi8(7));
  __m256i two = _mm256_and_si256(_mm256_srli_epi16(load(p + (q - 6) * 64), 6), _mm256_set1_epi8(3));
  return _mm256_or_si256(two, _mm256_and_si256(_mm256_srli_epi16(load(p + 128), q - 2), _mm256_set1_epi8(4)));
}

/* values of nibbles, made unsigned */
PL_INLINE __m256i code_iq4(const uint8_t *p, int q) { return lookup(values_iq4_128, code_u4(p, q)); }
PL_INLINE __m256i code_e2m1(const uint8_t *p, int q) { return lookup(values_e2m1_16, code_u4(p, q)); }

/* idot [NT][2] += codes of quad q, which CODE finds at w . block b */
#define PL_DOT_QUAD(CODE, w, q, b)                             \
  do {                                                         \
    __m256i w0 = CODE(w, q), w1 = CODE((w) + 32, q);           \
    PL_UNROLL for (int t = 0; t < NT; t++) {                   \
      __m256i x = quad(act(a, stride, t, b), q);               \
      idot[t][0] = _mm256_dpbusd_avx_epi32(idot[t][0], w0, x); \
      idot[t][1] = _mm256_dpbusd_avx_epi32(idot[t][1], w1, x); \
      PL_PIN(idot[t][0]);                                      \
      PL_PIN(idot[t][1]);                                      \
    }                                                          \
  } while (0)

/* idot [NT][2] = all quads, nibble lines being used twice in a row, starting from -ZERO * (sum of activations) */
#define PL_DOT(CODE, w, ZERO, b)                                                                           \
  PL_UNROLL for (int t = 0; t < NT; t++) idot[t][0] = idot[t][1] = zero_point(act(a, stride, t, b), ZERO); \
  PL_UNROLL for (int g = 0; g < 4; g++) {                                                                  \
    PL_DOT_QUAD(CODE, w, g, b);                                                                            \
    PL_DOT_QUAD(CODE, w, 4 + g, b);                                                                        \
  }

/* ---- tiles ---- */

/* Blocks of scales and codes with a fixed zero: Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4. SCALE reads 8 scales, BYTES each. */
#define PL_TILE_ZERO(BLOCK, SCALE, BYTES, ZERO, CODE)                                                             \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m256 acc[4][2];                                                                                             \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {                                                            \
      fetch_ahead(w, BLOCK);                                                                                      \
      __m256i idot[4][2];                                                                                         \
      PL_DOT(CODE, w + 16 * BYTES, ZERO, b)                                                                       \
      __m256 d0 = SCALE(w), d1 = SCALE(w + 8 * BYTES);                                                            \
      PL_UNROLL for (int t = 0; t < NT; t++) {                                                                    \
        __m256 da = _mm256_set1_ps(act(a, stride, t, b)->d);                                                      \
        acc[t][0] = scaled(idot[t][0], d0, da, acc[t][0]);                                                        \
        acc[t][1] = scaled(idot[t][1], d1, da, acc[t][1]);                                                        \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of scales, minimums and codes: Q4_1, Q5_1. */
#define PL_TILE_MIN(BLOCK, CODE)                                                                                  \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m256 acc[4][2];                                                                                             \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {                                                            \
      fetch_ahead(w, BLOCK);                                                                                      \
      __m256i idot[4][2];                                                                                         \
      PL_DOT(CODE, w + 64, 0, b)                                                                                  \
      __m256 d0 = half8(w), d1 = half8(w + 16), m0 = half8(w + 32), m1 = half8(w + 48);                           \
      PL_UNROLL for (int t = 0; t < NT; t++) {                                                                    \
        const pl_q8 *x = act(a, stride, t, b);                                                                    \
        __m256 da = _mm256_set1_ps(x->d), sa = _mm256_set1_ps(x->s);                                              \
        acc[t][0] = _mm256_fmadd_ps(m0, sa, scaled(idot[t][0], d0, da, acc[t][0]));                               \
        acc[t][1] = _mm256_fmadd_ps(m1, sa, scaled(idot[t][1], d1, da, acc[t][1]));                               \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of 256 in sub-blocks of 32 with byte scales and minimums: Q4_K, Q5_K. */
#define PL_TILE_K(SUB, CODE)                                                                                      \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m256 acc[4][2];                                                                                             \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b += 8) {                                                                     \
      const uint8_t *block = w;                                                                                   \
      w += 64;                                                                                                    \
      for (int j = 0; j < 8; j++, w += SUB) {                                                                     \
        fetch_ahead(w, SUB);                                                                                      \
        __m256i idot[4][2];                                                                                       \
        PL_DOT(CODE, w + 32, 0, b + j)                                                                            \
        PL_UNROLL for (int h = 0; h < 2; h++) {                                                                   \
          __m256 d = _mm256_mul_ps(half8(block + 16 * h), byte8(w + 8 * h));                                      \
          __m256 m = _mm256_mul_ps(half8(block + 32 + 16 * h), byte8(w + 16 + 8 * h));                            \
          PL_UNROLL for (int t = 0; t < NT; t++) {                                                                \
            const pl_q8 *x = act(a, stride, t, b + j);                                                            \
            acc[t][h] = scaled(idot[t][h], d, _mm256_set1_ps(x->d), acc[t][h]);                                   \
            acc[t][h] = _mm256_fnmadd_ps(m, _mm256_set1_ps(x->s), acc[t][h]);                                     \
          }                                                                                                       \
        }                                                                                                         \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of 256 with a byte scale for each 16 values: Q3_K, Q6_K. sum [hi] starts from -ZERO * h[hi]; MIX makes one of
 * both: sc0 * sum[0] + sc1 * sum[1]. */
#define PL_TILE_16(SUB, ZERO, CODE, MIX)                                                                          \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m256 acc[4][2];                                                                                             \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b += 8) {                                                                     \
      __m256 d0 = half8(w), d1 = half8(w + 16);                                                                   \
      w += 32;                                                                                                    \
      for (int j = 0; j < 8; j++, w += SUB) {                                                                     \
        fetch_ahead(w, SUB);                                                                                      \
        __m256i first[4][2], idot[4][2];                                                                          \
        PL_UNROLL for (int hi = 0; hi < 2; hi++) {                                                                \
          PL_UNROLL for (int t = 0; t < NT; t++) {                                                                \
            if (hi) first[t][0] = idot[t][0], first[t][1] = idot[t][1];                                           \
            idot[t][0] = idot[t][1] = _mm256_set1_epi32(-ZERO * act(a, stride, t, b + j)->h[hi]);                 \
          }                                                                                                       \
          PL_UNROLL for (int q = 4 * hi; q < 4 * hi + 4; q++) PL_DOT_QUAD(CODE, w + 32, q, b + j);                \
        }                                                                                                         \
        PL_UNROLL for (int h = 0; h < 2; h++) {                                                                   \
          __m256i s0 = sbytes8(w + 8 * h), s1 = sbytes8(w + 16 + 8 * h);                                          \
          PL_UNROLL for (int t = 0; t < NT; t++) {                                                                \
            __m256 da = _mm256_set1_ps(act(a, stride, t, b + j)->d);                                              \
            acc[t][h] = scaled(MIX(first[t][h], idot[t][h], s0, s1), h ? d1 : d0, da, acc[t][h]);                 \
          }                                                                                                       \
        }                                                                                                         \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

#endif
