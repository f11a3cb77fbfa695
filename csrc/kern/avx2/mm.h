/* mm.h: what the AVX2 matrix kernels share.
 *
 * A panel keeps 16 rows in SIMD lanes: 8 per register, so two registers, "halves", cover it. Quantized panels are
 * a sequence of blocks of 32 values: scales of 16 rows, then codes in lines of 64 bytes, where the 4 bytes of lane
 * r belong to row r at four consecutive k. In a nibble line g the low nibbles are values 4g .. 4g+3 and the high
 * ones 16+4g .. 16+4g+3, so the 32 values are eight quads: low 0..3, then high 0..3. Four bytes of the activation
 * are broadcast and multiplied with a quad of all rows at once; weights stay unsigned and low-bit, products of
 * pairs are added in int16 as far as that is safe, and zero points are made up for with the activation's sums. */
#ifndef PL_AVX2_MM_H
#define PL_AVX2_MM_H
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

/* 8 half floats, 8 bfloat16. */
PL_INLINE __m256 half8(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128(p)); }
PL_INLINE __m256 bfloat8(const void *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}

/* 8 bytes as int32. */
PL_INLINE __m256i bytes8(const void *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
PL_INLINE __m256i sbytes8(const void *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64(p)); }

/* 8 unsigned bytes as floats. */
PL_INLINE __m256 byte8(const void *p) { return _mm256_cvtepi32_ps(bytes8(p)); }

/* int32 in the range of int16, made pairs of int16: (a, b), (a, a). */
PL_INLINE __m256i pairs(__m256i a, __m256i b) { return _mm256_blend_epi16(a, _mm256_slli_epi32(b, 16), 0xaa); }
PL_INLINE __m256i same_pairs(__m256i a) { return pairs(a, a); }

/* acc = fma((float)idot, dw * da, acc) */
PL_INLINE __m256 scaled(__m256i idot, __m256 dw, __m256 da, __m256 acc) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(idot), _mm256_mul_ps(dw, da), acc);
}

/* sum += pairwise dot of codes (unsigned) and activations (signed) */
PL_INLINE void add_pairs(__m256i *sum, __m256i codes, __m256i x, int first) {
  __m256i p = _mm256_maddubs_epi16(codes, x);
  *sum = first ? p : _mm256_add_epi16(*sum, p);
}

/* idot [NT][2] = 4-bit codes (four nibble lines) . block b: eight sums of two products of at most 15 * 128 fit in
 * int16. */
PL_INLINE void dot_u4(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m256i idot[][2],
                      const int NT) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  PL_UNROLL for (int g = 0; g < 4; g++) {
    __m256i w0 = load(codes + g * 64), w1 = load(codes + g * 64 + 32);
    __m256i l0 = _mm256_and_si256(w0, low), l1 = _mm256_and_si256(w1, low);
    __m256i h0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), low);
    __m256i h1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), low);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      const pl_q8 *x = act(a, stride, t, b);
      __m256i xl = quad(x, g), xh = quad(x, 4 + g);
      add_pairs(&idot[t][0], l0, xl, g == 0);
      add_pairs(&idot[t][1], l1, xl, g == 0);
      add_pairs(&idot[t][0], h0, xh, 0);
      add_pairs(&idot[t][1], h1, xh, 0);
      PL_PIN(idot[t][0]);
      PL_PIN(idot[t][1]);
    }
  }
  PL_UNROLL for (int t = 0; t < NT; t++) {
    idot[t][0] = _mm256_madd_epi16(idot[t][0], ones);
    idot[t][1] = _mm256_madd_epi16(idot[t][1], ones);
  }
}

/* The 32 fifth bits of one row (bit i of qh for value i) as the four bytes of its lane: bit q of byte i is that of
 * value 4q + i. Byte 8i + q of the vector looks at the source bit, and the mask gathers them. */
PL_INLINE void put_fifth_bits(const uint8_t *qh, uint8_t *lane) {
  const __m256i from = _mm256_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3, 0,
                                        0, 1, 1, 2, 2, 3, 3);
  const __m256i bit = _mm256_setr_epi32(0x10011001, 0x10011001, 0x20022002, 0x20022002, 0x40044004, 0x40044004,
                                        (int)0x80088008, (int)0x80088008);
  __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(bcast4(qh), from), bit);
  int32_t bits = _mm256_movemask_epi8(_mm256_cmpeq_epi8(v, bit));
  memcpy(lane, &bits, 4);
}

/* The same where bit j of byte i of qh [32] is the fifth bit of value i: spread once per block, gathered per j. */
PL_INLINE __m256i spread_fifth_bits(const uint8_t *qh) {
  const __m256i columns = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5,
                                           9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(load(qh), columns), order);
}
PL_INLINE void gather_fifth_bits(__m256i spread, int j, uint8_t *lane) {
  int32_t bits = _mm256_movemask_epi8(_mm256_sll_epi16(spread, _mm_cvtsi32_si128(7 - j)));
  memcpy(lane, &bits, 4);
}

/* The four words of v, one to a nibble line each, for one row. */
PL_INLINE void put_words(uint8_t *lines, __m128i v) {
  int32_t word[4];
  _mm_storeu_si128((void *)word, v);
  for (int g = 0; g < 4; g++) memcpy(lines + 64 * g, &word[g], 4);
}

/* The lowest two bits of 32 bytes, to two lines of two-bit codes for one row: word g of a half goes to bits 2g of its
 * bytes. */
PL_INLINE void put_two_bits(uint8_t *lines, __m256i v) {
  v = _mm256_and_si256(v, _mm256_set1_epi8(3));
  v = _mm256_sllv_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  v = _mm256_or_si256(v, _mm256_shuffle_epi32(v, 0x4e));
  v = _mm256_or_si256(v, _mm256_shuffle_epi32(v, 0xb1));
  int32_t first = _mm256_extract_epi32(v, 0), last = _mm256_extract_epi32(v, 4);
  memcpy(lines, &first, 4);
  memcpy(lines + 64, &last, 4);
}

/* Nibbles of 32 values from bytes a (values 0..15) and b (16..31): the low nibbles, or the high ones. */
PL_INLINE __m128i nibbles(__m128i a, __m128i b, int high) {
  const __m128i low = _mm_set1_epi8(15);
  if (high) return _mm_or_si128(_mm_and_si128(_mm_srli_epi16(a, 4), low), _mm_andnot_si128(low, b));
  return _mm_or_si128(_mm_and_si128(a, low), _mm_andnot_si128(low, _mm_slli_epi16(b, 4)));
}

/* The bit of quad q (0..7) of a line of 5th bits, moved to bit 4 of its byte. Bit q of byte i of lane r belongs to
 * value 4q + i of row r. */
PL_INLINE __m256i bit5(__m256i line, int q) {
  __m256i at4 = q <= 4 ? _mm256_slli_epi16(line, 4 - q) : _mm256_srli_epi16(line, q - 4);
  return _mm256_and_si256(at4, _mm256_set1_epi8(16));
}

/* idot [NT][2] = 5-bit codes (a line of 5th bits, then four nibble lines) . block b: four sums of two products of
 * at most 31 * 128 fit in int16. */
PL_INLINE void dot_u5(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m256i idot[][2],
                      const int NT) {
  const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  const __m256i f0 = load(codes), f1 = load(codes + 32);
  __m256i sum[4][2];
  PL_UNROLL for (int hi = 0; hi < 2; hi++) {
    PL_UNROLL for (int g = 0; g < 4; g++) {
      __m256i w0 = load(codes + 64 + g * 64), w1 = load(codes + 64 + g * 64 + 32);
      if (hi) w0 = _mm256_srli_epi16(w0, 4), w1 = _mm256_srli_epi16(w1, 4);
      w0 = _mm256_or_si256(_mm256_and_si256(w0, low), bit5(f0, 4 * hi + g));
      w1 = _mm256_or_si256(_mm256_and_si256(w1, low), bit5(f1, 4 * hi + g));
      PL_UNROLL for (int t = 0; t < NT; t++) {
        __m256i x = quad(act(a, stride, t, b), 4 * hi + g);
        add_pairs(&sum[t][0], w0, x, g == 0);
        add_pairs(&sum[t][1], w1, x, g == 0);
        PL_PIN(sum[t][0]);
        PL_PIN(sum[t][1]);
      }
    }
    PL_UNROLL for (int t = 0; t < NT; t++) {
      PL_UNROLL for (int h = 0; h < 2; h++) {
        __m256i s = _mm256_madd_epi16(sum[t][h], ones);
        idot[t][h] = hi ? _mm256_add_epi32(idot[t][h], s) : s;
      }
    }
  }
}

/* Lookup of 16 bytes by the low nibbles of v, the high ones being zero. */
PL_INLINE __m256i lookup(const void *table, __m256i v) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table)), v);
}

/* sum += (|w|, sign(w) x) pairwise, and the pairs of those: |w| <= 128 and |x| <= 127, so one sum of two products fits
 * in int16. */
PL_INLINE void add_signed(__m256i *sum, __m256i w, __m256i mag, __m256i x, int first) {
  __m256i p = _mm256_madd_epi16(_mm256_maddubs_epi16(mag, _mm256_sign_epi8(x, w)), _mm256_set1_epi16(1));
  *sum = first ? p : _mm256_add_epi32(*sum, p);
}

/* idot [NT][2] = the values of IQ4 codes (four nibble lines) . block b */
PL_INLINE void dot_iq4(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m256i idot[][2],
                       const int NT) {
  const __m256i low = _mm256_set1_epi8(15);
  PL_UNROLL for (int g = 0; g < 4; g++) {
    PL_UNROLL for (int hi = 0; hi < 2; hi++) {
      __m256i w0 = load(codes + g * 64), w1 = load(codes + g * 64 + 32);
      if (hi) w0 = _mm256_srli_epi16(w0, 4), w1 = _mm256_srli_epi16(w1, 4);
      w0 = lookup(values_iq4, _mm256_and_si256(w0, low));
      w1 = lookup(values_iq4, _mm256_and_si256(w1, low));
      __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
      PL_UNROLL for (int t = 0; t < NT; t++) {
        __m256i x = quad(act(a, stride, t, b), 4 * hi + g);
        add_signed(&idot[t][0], w0, m0, x, g == 0 && !hi);
        add_signed(&idot[t][1], w1, m1, x, g == 0 && !hi);
        PL_PIN(idot[t][0]);
        PL_PIN(idot[t][1]);
      }
    }
  }
}

/* -zero * (sum of the block's activations) in every lane, zero being 0 or a power of two: what makes up for unsigned
 * codes */
PL_INLINE __m256i zero_point(const pl_q8 *x, const int zero) {
  return zero ? _mm256_slli_epi32(bcast4(&x->z), __builtin_ctz((unsigned)zero)) : _mm256_setzero_si256();
}

/* Half of 8 E8M0 scales; the two smallest are subnormal. */
PL_INLINE __m256 e8m0_half8(const uint8_t *p) {
  __m256i e = bytes8(p), normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
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

#endif
