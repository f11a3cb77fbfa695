/* mm.h: what the AVX-512 (VNNI) matrix kernels share.
 *
 * Panels are those of the AVX2 room (csrc/kern/avx2/mm.h), packed by its kernels: a line of 64 bytes is one
 * register, 16 rows of four codes. vpdpbusd multiplies unsigned codes with four broadcast bytes of the activation
 * and adds the four products to 16 exact int32 sums, so nothing needs care but the zero point. Tiles are up to 8
 * activation rows. */
#ifndef PL_AVX512_MM_H
#define PL_AVX512_MM_H
#include <immintrin.h>

#include "kern/ref/codes.h"
#include "kern/tile.h"

/* Keeps v in a register at this point: without it gcc reorders whole tiles and spills their accumulators. */
#define PL_PIN(v) __asm__("" : "+v"(v))

/* The kernel made of tile(): tiles of 8, then one of what is left. */
#define PL_MM8(type)                                                                                 \
  PL_TILE(1)                                                                                         \
  PL_TILE(2)                                                                                         \
  PL_TILE(3)                                                                                         \
  PL_TILE(4)                                                                                         \
  PL_TILE(5)                                                                                         \
  PL_TILE(6)                                                                                         \
  PL_TILE(7)                                                                                         \
  PL_TILE(8)                                                                                         \
  void pl_mm_##type##_avx512(const void *w, int64_t row_bytes, int32_t nr, int64_t k, const void *a, \
                             int64_t a_stride, int32_t nt, const int32_t *at, float *y) {            \
    const uint8_t *x = a;                                                                            \
    for (; nt >= 8; nt -= 8, x += 8 * a_stride, at += 8) tile8(w, k, x, a_stride, y, at);            \
    if (nt == 7) tile7(w, k, x, a_stride, y, at);                                                    \
    if (nt == 6) tile6(w, k, x, a_stride, y, at);                                                    \
    if (nt == 5) tile5(w, k, x, a_stride, y, at);                                                    \
    if (nt == 4) tile4(w, k, x, a_stride, y, at);                                                    \
    if (nt == 3) tile3(w, k, x, a_stride, y, at);                                                    \
    if (nt == 2) tile2(w, k, x, a_stride, y, at);                                                    \
    if (nt == 1) tile1(w, k, x, a_stride, y, at);                                                    \
  }

PL_INLINE __m512i line(const void *p) { return _mm512_loadu_si512(p); }

/* Four bytes in every lane. */
PL_INLINE __m512i bcast4(const void *p) {
  int32_t v;
  memcpy(&v, p, 4);
  return _mm512_set1_epi32(v);
}

/* Quad q of an activation block in every lane. */
PL_INLINE __m512i quad(const pl_q8 *x, int q) { return bcast4(x->q + 4 * q); }

/* 16 half floats, 16 bfloat16. */
PL_INLINE __m512 half16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
PL_INLINE __m512 bfloat16(const void *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

/* 16 bytes as int32, unsigned ones as floats. */
PL_INLINE __m512i bytes16(const void *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
PL_INLINE __m512i sbytes16(const void *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128(p)); }
PL_INLINE __m512 byte16(const void *p) { return _mm512_cvtepi32_ps(bytes16(p)); }

/* int32 in the range of int16, made pairs (a, b) of int16. */
PL_INLINE __m512i pairs(__m512i a, __m512i b) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, a, _mm512_slli_epi32(b, 16));
}

/* acc = fma((float)idot, dw * da, acc) */
PL_INLINE __m512 scaled(__m512i idot, __m512 dw, __m512 da, __m512 acc) {
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(idot), _mm512_mul_ps(dw, da), acc);
}

/* -zero * (sum of the block's activations) in every lane: what sums of unsigned codes start from. zero: a constant, a
 * power of two or one less. */
PL_INLINE __m512i zero_point(const pl_q8 *x, const int zero) {
  __m512i z = bcast4(&x->z);
  if (zero & (zero - 1))
    return _mm512_sub_epi32(_mm512_slli_epi32(z, (unsigned)__builtin_ctz((unsigned)zero + 1)), z);
  return _mm512_slli_epi32(z, (unsigned)__builtin_ctz((unsigned)zero));
}

PL_INLINE __m512i low4(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
PL_INLINE __m512i high4(__m512i v) { return low4(_mm512_srli_epi16(v, 4)); }

/* idot [NT] += quads g (lo) and 4 + g (hi) of codes . block b */
PL_INLINE void dot_quads(__m512i lo, __m512i hi, int g, const uint8_t *a, int64_t stride, int64_t b,
                         __m512i idot[], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) {
    const pl_q8 *x = act(a, stride, t, b);
    idot[t] = _mm512_dpbusd_epi32(idot[t], lo, quad(x, g));
    idot[t] = _mm512_dpbusd_epi32(idot[t], hi, quad(x, 4 + g));
    PL_PIN(idot[t]);
  }
}

/* idot [NT] += 4-bit codes (four nibble lines) . block b */
PL_INLINE void dot_u4(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m512i idot[],
                      const int NT) {
  PL_UNROLL for (int g = 0; g < 4; g++) {
    __m512i w = line(codes + g * 64);
    dot_quads(low4(w), high4(w), g, a, stride, b, idot, NT);
  }
}

/* The bit of quad q (0..7) of a line of 5th bits, moved to bit 4 of its byte. */
PL_INLINE __m512i bit5(__m512i v, int q) {
  __m512i at4 = q <= 4 ? _mm512_slli_epi16(v, 4 - q) : _mm512_srli_epi16(v, q - 4);
  return _mm512_and_si512(at4, _mm512_set1_epi8(16));
}

/* idot [NT] += 5-bit codes (a line of 5th bits, then four nibble lines) . block b */
PL_INLINE void dot_u5(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m512i idot[],
                      const int NT) {
  const __m512i fifth = line(codes);
  PL_UNROLL for (int g = 0; g < 4; g++) {
    __m512i w = line(codes + 64 + g * 64);
    __m512i lo = _mm512_or_si512(low4(w), bit5(fifth, g)), hi = _mm512_or_si512(high4(w), bit5(fifth, 4 + g));
    dot_quads(lo, hi, g, a, stride, b, idot, NT);
  }
}

/* idot [NT] += value + 128 of IQ4 codes, or value + 16 of E2M1 codes (four nibble lines) . block b */
PL_INLINE void dot_table(const uint8_t *value, const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b,
                         __m512i idot[], const int NT) {
  const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)value));
  PL_UNROLL for (int g = 0; g < 4; g++) {
    __m512i w = line(codes + g * 64);
    dot_quads(_mm512_shuffle_epi8(table, low4(w)), _mm512_shuffle_epi8(table, high4(w)), g, a, stride, b, idot,
              NT);
  }
}
PL_INLINE void dot_iq4(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m512i idot[],
                       const int NT) {
  dot_table(values_iq4_128, codes, a, stride, b, idot, NT);
}
PL_INLINE void dot_e2m1(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m512i idot[],
                        const int NT) {
  dot_table(values_e2m1_16, codes, a, stride, b, idot, NT);
}

/* Half of 16 E8M0 scales; the two smallest are subnormal. */
PL_INLINE __m512 e8m0_half16(const void *p) {
  __m512i e = bytes16(p), normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  __mmask16 small = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, small, _mm512_set1_epi32(0x00200000), e));
}

PL_INLINE void load_tile(const float *y, const int32_t *at, __m512 acc[], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) acc[t] = _mm512_loadu_ps(y + at[t] * PL_PANEL);
}

PL_INLINE void store_tile(float *y, const int32_t *at, __m512 acc[], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) _mm512_storeu_ps(y + at[t] * PL_PANEL, acc[t]);
}

/* Blocks of scales and codes with a fixed zero: Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4. */
#define PL_TILE_ZERO(BLOCK, SCALE, CODES, ZERO, DOT)                                                              \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m512 acc[8];                                                                                                \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {                                                            \
      fetch_ahead(w, BLOCK);                                                                                      \
      __m512i idot[8];                                                                                            \
      PL_UNROLL for (int t = 0; t < NT; t++) idot[t] = zero_point(act(a, stride, t, b), ZERO);                    \
      DOT(w + CODES, a, stride, b, idot, NT);                                                                     \
      __m512 d = SCALE(w);                                                                                        \
      PL_UNROLL for (int t = 0; t < NT; t++) acc[t] =                                                             \
          scaled(idot[t], d, _mm512_set1_ps(act(a, stride, t, b)->d), acc[t]);                                    \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of scales, minimums and codes: Q4_1, Q5_1. */
#define PL_TILE_MIN(BLOCK, CODES, DOT)                                                                            \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m512 acc[8];                                                                                                \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {                                                            \
      fetch_ahead(w, BLOCK);                                                                                      \
      __m512i idot[8];                                                                                            \
      PL_UNROLL for (int t = 0; t < NT; t++) idot[t] = _mm512_setzero_si512();                                    \
      DOT(w + CODES, a, stride, b, idot, NT);                                                                     \
      __m512 d = half16(w), m = half16(w + 32);                                                                   \
      PL_UNROLL for (int t = 0; t < NT; t++) {                                                                    \
        const pl_q8 *x = act(a, stride, t, b);                                                                    \
        acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(x->s), scaled(idot[t], d, _mm512_set1_ps(x->d), acc[t]));      \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of 256 in sub-blocks of 32 with byte scales and minimums: Q4_K, Q5_K. */
#define PL_TILE_K(SUB, DOT)                                                                                       \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m512 acc[8];                                                                                                \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b += 8) {                                                                     \
      __m512 d = half16(w), dmin = half16(w + 32);                                                                \
      w += 64;                                                                                                    \
      for (int j = 0; j < 8; j++, w += SUB) {                                                                     \
        fetch_ahead(w, SUB);                                                                                      \
        __m512i idot[8];                                                                                          \
        PL_UNROLL for (int t = 0; t < NT; t++) idot[t] = _mm512_setzero_si512();                                  \
        DOT(w + 32, a, stride, b + j, idot, NT);                                                                  \
        __m512 ds = _mm512_mul_ps(d, byte16(w)), ms = _mm512_mul_ps(dmin, byte16(w + 16));                        \
        PL_UNROLL for (int t = 0; t < NT; t++) {                                                                  \
          const pl_q8 *x = act(a, stride, t, b + j);                                                              \
          acc[t] = _mm512_fnmadd_ps(ms, _mm512_set1_ps(x->s), scaled(idot[t], ds, _mm512_set1_ps(x->d), acc[t])); \
        }                                                                                                         \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* [k][16] weights that LOAD(p) widens to float, BYTES each: F32, F16, BF16. */
#define PL_TILE_FLOAT(BYTES, LOAD)                                                                                \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    __m512 acc[8];                                                                                                \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t i = 0; i < k; i++, w += 16 * BYTES) {                                                            \
      if (i % (4 / BYTES) == 0) fetch_ahead(w, 64);                                                               \
      __m512 v = LOAD(w);                                                                                         \
      PL_UNROLL for (int t = 0; t < NT; t++) acc[t] =                                                             \
          _mm512_fmadd_ps(v, _mm512_set1_ps(((const float *)(const void *)(a + t * stride))[i]), acc[t]);         \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

#endif
