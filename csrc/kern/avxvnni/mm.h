/* mm.h: what the AVX-VNNI matrix kernels share.
 *
 * Panels are those of the AVX2 room (csrc/kern/avx2/mm.h), packed by its kernels: a line of 64 bytes is two registers,
 * "halves" of 8 rows of four codes. vpdpbusd multiplies unsigned codes with four broadcast bytes of the activation
 * and adds the four products to 8 exact int32 sums. Kernels of float weights stay those of the AVX2 room. */
#ifndef PL_AVXVNNI_MM_H
#define PL_AVXVNNI_MM_H
#include <immintrin.h>

#include "kern/ref/codes.h"
#include "kern/tile.h"

/* Keeps v in a register at this point: without it gcc reorders whole tiles and spills their accumulators. */
#define PL_PIN(v) __asm__("" : "+x"(v))

PL_INLINE __m256i load(const void *p) { return _mm256_loadu_si256(p); }

/* Four bytes in every lane. */
PL_INLINE __m256i bcast4(const void *p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm256_set1_epi32(v);
}

/* Quad q of an activation block in every lane. */
PL_INLINE __m256i quad(const pl_q8 *x, int q) { return bcast4(x->q + 4 * q); }

/* 8 half floats. */
PL_INLINE __m256 half8(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }

/* 8 bytes as int32, unsigned ones as floats. */
PL_INLINE __m256i bytes8(const void *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
PL_INLINE __m256i sbytes8(const void *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(p)); }
PL_INLINE __m256 byte8(const void *p) { return _mm256_cvtepi32_ps(bytes8(p)); }

/* Half of 8 E8M0 scales; the two smallest are subnormal. */
PL_INLINE __m256 e8m0_half8(const uint8_t *p) {
  __m256i e = bytes8(p), normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

/* int32 in the range of int16, made pairs (a, b) of int16. */
PL_INLINE __m256i pairs(__m256i a, __m256i b) { return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa); }

/* acc = fma((float)idot, dw * da, acc) */
PL_INLINE __m256 scaled(__m256i idot, __m256 dw, __m256 da, __m256 acc) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(idot), _mm256_mul_ps(dw, da), acc);
}

/* -zero * (sum of the block's activations) in every lane: what sums of unsigned codes start from */
PL_INLINE __m256i zero_point(const pl_q8 *x, const int zero) {
  return zero ? _mm256_slli_epi32(bcast4(&x->z), __builtin_ctz((unsigned)zero)) : _mm256_setzero_si256();
}

/* ---- codes: quad q of the half of 8 rows whose first line is at p ---- */

PL_INLINE __m256i code_u4(const uint8_t *p, int q) {
  __m256i v = load(p + q % 4 * 64);
  return _mm256_and_si256(q < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
}

/* a line of 5th bits, then nibble lines */
PL_INLINE __m256i code_u5(const uint8_t *p, int q) {
  __m256i fifth = load(p), at4 = q <= 4 ? _mm256_slli_epi16(fifth, 4 - q) : _mm256_srli_epi16(fifth, q - 4);
  return _mm256_or_si256(code_u4(p + 64, q), _mm256_and_si256(at4, _mm256_set1_epi8(16)));
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

/* values of nibbles: value + 128 of IQ4 codes, value + 16 of E2M1 codes */
PL_INLINE __m256i lookup(const uint8_t *table, __m256i v) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table)), v);
}
PL_INLINE __m256i code_iq4(const uint8_t *p, int q) {
  static const uint8_t value[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
  return lookup(value, code_u4(p, q));
}
PL_INLINE __m256i code_e2m1(const uint8_t *p, int q) {
  static const uint8_t value[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};
  return lookup(value, code_u4(p, q));
}

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

PL_INLINE void load_tile(const float *y, const int32_t *at, __m256 acc[][2], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) {
    acc[t][0] = _mm256_loadu_ps(y + at[t] * PL_PANEL);
    acc[t][1] = _mm256_loadu_ps(y + at[t] * PL_PANEL + 8);
  }
}

PL_INLINE void store_tile(float *y, const int32_t *at, __m256 acc[][2], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) {
    _mm256_storeu_ps(y + at[t] * PL_PANEL, acc[t][0]);
    _mm256_storeu_ps(y + at[t] * PL_PANEL + 8, acc[t][1]);
  }
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
