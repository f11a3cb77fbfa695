/* panel.h: the panels of the dotprod and i8mm rooms.
 *
 * A quantized panel is a sequence of blocks of 32 values of 16 rows: scales, then codes in planes of 64 bytes. A plane
 * is four registers. Its bytes come in words of PL_E values of one row, next to each other in k, as the room's dot
 * product wants them: 4 values (sdot: a lane is a row) or 8 (smmla: half a register is a row). The 128 words of 4
 * values are eight slots of 16, one word per row: slot s holds values 4s .. 4s+3. The 64 words of 8 values are eight
 * slots of 8: slot s holds values 8 (s % 4) .. + 7 of rows 0 .. 7 if s < 4, else of rows 8 .. 15. So a plane of bytes
 * is one slot, and planes of b-bit codes take b planes for all eight, whatever the room. */
#ifndef PL_DOTPROD_PANEL_H
#define PL_DOTPROD_PANEL_H
#include <arm_neon.h>

#include "kern/ref/codes.h"
#include "kern/ref/scale_k.h"
#include "kern/tile.h"

#if PL_E == 4
typedef uint32_t word;
#elif PL_E == 8
typedef uint64_t word;
#else
#error "PL_E is the number of values in a word: 4 or 8"
#endif
enum { PL_WORDS = 64 / PL_E, PL_SLOTS = 32 / PL_E }; /* words in a plane, slots of one row */

/* ---- packing: bits of one row are added to planes of zeros ---- */

/* The word of bytes c [32] that goes to slot s of row r: word i of the row. */
PL_INLINE word word_of(const uint8_t *c, int i) {
  word v;
  memcpy(&v, c + PL_E * i, PL_E);
  return v;
}
PL_INLINE int slot_of(int r, int i) { return i + r / PL_WORDS * PL_SLOTS; }
/* Or v, shifted left, into row r's word of a plane. Codes are small enough that no bit leaves its byte. */
PL_INLINE void put(uint8_t *plane, int r, word v, int shift) {
  word old;
  uint8_t *p = plane + r % PL_WORDS * PL_E;
  memcpy(&old, p, PL_E);
  old |= v << shift;
  memcpy(p, &old, PL_E);
}
/* Bits of every byte. */
#define PL_EACH_BYTE(bits) ((word)0x0101010101010101u * (bits))

/* Four planes of nibbles: slots s and s + 4 share plane s. */
PL_INLINE void put4(uint8_t *p, int r, const uint8_t *c) {
  for (int i = 0; i < PL_SLOTS; i++) {
    int s = slot_of(r, i);
    put(p + s % 4 * 64, r, word_of(c, i), s / 4 * 4);
  }
}
/* Two planes of two bits: slots 0..3 in the first, 4..7 in the second. */
PL_INLINE void put2(uint8_t *p, int r, const uint8_t *c) {
  for (int i = 0; i < PL_SLOTS; i++) {
    int s = slot_of(r, i);
    put(p + s / 4 * 64, r, word_of(c, i), s % 4 * 2);
  }
}
/* Three planes of three bits: slots 0 2 4 in bits 0..2, 1 3 5 in bits 5..7; of 6 and 7 the upper two bits in bits 3..4
 * of the first and second, the lowest in bits 4 and 3 of the third. */
PL_INLINE void put3(uint8_t *p, int r, const uint8_t *c) {
  for (int i = 0; i < PL_SLOTS; i++) {
    int s = slot_of(r, i);
    word v = word_of(c, i);
    if (s < 6) {
      put(p + s / 2 * 64, r, v, s % 2 * 5);
    } else {
      put(p + (s - 6) * 64, r, v >> 1 & PL_EACH_BYTE(3), 3);
      put(p + 128, r, v & PL_EACH_BYTE(1), 10 - s);
    }
  }
}
/* Five planes of five bits: slots 0 .. 4 in bits 0..4; of 5, 6 and 7 the upper three bits in bits 5..7 of the first
 * three planes, the rest in bits 6..7 of the fourth (5), of the fifth (6), and in bit 5 of both (7). */
PL_INLINE void put5(uint8_t *p, int r, const uint8_t *c) {
  for (int i = 0; i < PL_SLOTS; i++) {
    int s = slot_of(r, i);
    word v = word_of(c, i);
    if (s < 5) {
      put(p + s * 64, r, v, 0);
    } else {
      put(p + (s - 5) * 64, r, v >> 2 & PL_EACH_BYTE(7), 5);
      if (s < 7) {
        put(p + (s - 2) * 64, r, v & PL_EACH_BYTE(3), 6);
      } else {
        put(p + 192, r, v >> 1 & PL_EACH_BYTE(1), 5);
        put(p + 256, r, v & PL_EACH_BYTE(1), 5);
      }
    }
  }
}
/* Six planes of six bits: slots 0 1 2 in bits 0..5 of the first three, the bits of 3 in their bits 6..7, highest first;
 * slots 4 .. 7 likewise in the others. */
PL_INLINE void put6(uint8_t *p, int r, const uint8_t *c) {
  for (int i = 0; i < PL_SLOTS; i++) {
    int s = slot_of(r, i);
    uint8_t *planes = p + s / 4 * 192;
    word v = word_of(c, i);
    if (s % 4 < 3) {
      put(planes + s % 4 * 64, r, v, 0);
    } else {
      put(planes, r, v >> 4 & PL_EACH_BYTE(3), 6);
      put(planes + 64, r, v >> 2 & PL_EACH_BYTE(3), 6);
      put(planes + 128, r, v & PL_EACH_BYTE(3), 6);
    }
  }
}
/* Eight planes of bytes. */
PL_INLINE void put8(uint8_t *p, int r, const uint8_t *c) {
  for (int i = 0; i < PL_SLOTS; i++) put(p + slot_of(r, i) * 64, r, word_of(c, i), 0);
}

/* ---- layouts: bytes of a block, and what one source block of row r puts there ---- */

/* Per 32 values: 16 scales (and 16 minimums), codes. As large as the source. */
enum {
  BLOCK_Q4_0 = 288,
  BLOCK_Q4_1 = 320,
  BLOCK_Q5_0 = 352,
  BLOCK_Q5_1 = 384,
  BLOCK_Q8_0 = 544,
  BLOCK_IQ4_NL = 288
};
enum { BLOCK_MXFP4 = 272 }; /* the scales are bytes */

/* Per 256 values: 16 scales (and 16 scales of the minimums); then sub-blocks of 32 values: 16 scale codes (twice where a
 * scale serves 16 values; and 16 minimum codes), codes. Scale codes are bytes, signed ones plus 128. */
enum { SUB_Q2_K = 160, SUB_Q3_K = 224, SUB_Q4_K = 288, SUB_Q5_K = 352, SUB_Q6_K = 416, SUB_IQ4_XS = 272 };
enum { BLOCK_Q2_K = 64 + 8 * SUB_Q2_K, BLOCK_Q3_K = 32 + 8 * SUB_Q3_K, BLOCK_Q4_K = 64 + 8 * SUB_Q4_K };
enum { BLOCK_Q5_K = 64 + 8 * SUB_Q5_K, BLOCK_Q6_K = 32 + 8 * SUB_Q6_K, BLOCK_IQ4_XS = 32 + 8 * SUB_IQ4_XS };

/* Invert a bit of all codes: the highest becomes a sign. */
PL_INLINE void flip(uint8_t *c, int bit) {
  for (int i = 0; i < 32; i++) c[i] = (uint8_t)(c[i] ^ bit);
}

PL_INLINE void row_Q4_0(const pl_block_q4_0 *w, uint8_t *p, int r) {
  uint8_t c[32];
  copy2(p + 2 * r, &w->d);
  codes_nibbles(w->qs, c);
  flip(c, 8);
  put4(p + 32, r, c);
}
PL_INLINE void row_Q4_1(const pl_block_q4_1 *w, uint8_t *p, int r) {
  uint8_t c[32];
  copy2(p + 2 * r, &w->d);
  copy2(p + 32 + 2 * r, &w->m);
  codes_nibbles(w->qs, c);
  put4(p + 64, r, c);
}
PL_INLINE void row_Q5_0(const pl_block_q5_0 *w, uint8_t *p, int r) {
  uint8_t c[32];
  copy2(p + 2 * r, &w->d);
  codes_q5(w->qs, w->qh, c);
  flip(c, 16);
  put5(p + 32, r, c);
}
PL_INLINE void row_Q5_1(const pl_block_q5_1 *w, uint8_t *p, int r) {
  uint8_t c[32];
  copy2(p + 2 * r, &w->d);
  copy2(p + 32 + 2 * r, &w->m);
  codes_q5(w->qs, w->qh, c);
  flip(c, 16);
  put5(p + 64, r, c);
}
PL_INLINE void row_Q8_0(const pl_block_q8_0 *w, uint8_t *p, int r) {
  copy2(p + 2 * r, &w->d);
  put8(p + 32, r, (const uint8_t *)w->qs);
}
PL_INLINE void row_IQ4_NL(const pl_block_iq4_nl *w, uint8_t *p, int r) {
  uint8_t c[32];
  copy2(p + 2 * r, &w->d);
  codes_nibbles(w->qs, c);
  put4(p + 32, r, c);
}
PL_INLINE void row_MXFP4(const pl_block_mxfp4 *w, uint8_t *p, int r) {
  uint8_t c[32];
  p[r] = w->e;
  codes_nibbles(w->qs, c);
  put4(p + 16, r, c);
}
PL_INLINE void row_Q2_K(const pl_block_q2_K *w, uint8_t *p, int r) {
  copy2(p + 2 * r, &w->d);
  copy2(p + 32 + 2 * r, &w->dmin);
  p += 64;
  for (int j = 0; j < 8; j++, p += SUB_Q2_K) {
    uint8_t c[32];
    p[r] = w->scales[2 * j];
    p[16 + r] = w->scales[2 * j + 1];
    codes_q2_k(w->qs, j, c);
    put2(p + 32, r, c);
  }
}
PL_INLINE void row_Q3_K(const pl_block_q3_K *w, uint8_t *p, int r) {
  copy2(p + 2 * r, &w->d);
  p += 32;
  for (int j = 0; j < 8; j++, p += SUB_Q3_K) {
    uint8_t c[32];
    p[r] = (uint8_t)(scale_q3(w->scales, 2 * j) + 128);
    p[16 + r] = (uint8_t)(scale_q3(w->scales, 2 * j + 1) + 128);
    codes_q3_k(w, j, c);
    flip(c, 4);
    put3(p + 32, r, c);
  }
}
PL_INLINE void row_Q4_K(const pl_block_q4_K *w, uint8_t *p, int r) {
  copy2(p + 2 * r, &w->d);
  copy2(p + 32 + 2 * r, &w->dmin);
  p += 64;
  for (int j = 0; j < 8; j++, p += SUB_Q4_K) {
    uint8_t c[32];
    scale_min(w->scales, j, &p[r], &p[16 + r]);
    codes_q4_k(w->qs, j, c);
    put4(p + 32, r, c);
  }
}
PL_INLINE void row_Q5_K(const pl_block_q5_K *w, uint8_t *p, int r) {
  copy2(p + 2 * r, &w->d);
  copy2(p + 32 + 2 * r, &w->dmin);
  p += 64;
  for (int j = 0; j < 8; j++, p += SUB_Q5_K) {
    uint8_t c[32];
    scale_min(w->scales, j, &p[r], &p[16 + r]);
    codes_q5_k(w, j, c);
    flip(c, 16);
    put5(p + 32, r, c);
  }
}
PL_INLINE void row_Q6_K(const pl_block_q6_K *w, uint8_t *p, int r) {
  copy2(p + 2 * r, &w->d);
  p += 32;
  for (int j = 0; j < 8; j++, p += SUB_Q6_K) {
    uint8_t c[32];
    p[r] = (uint8_t)(w->scales[2 * j] + 128);
    p[16 + r] = (uint8_t)(w->scales[2 * j + 1] + 128);
    codes_q6_k(w, j, c);
    flip(c, 32);
    put6(p + 32, r, c);
  }
}
PL_INLINE void row_IQ4_XS(const pl_block_iq4_xs *w, uint8_t *p, int r) {
  copy2(p + 2 * r, &w->d);
  p += 32;
  for (int j = 0; j < 8; j++, p += SUB_IQ4_XS) {
    uint8_t c[32];
    p[r] = (uint8_t)(scale_iq4_xs(w, j) + 128);
    codes_nibbles(w->qs + 16 * j, c);
    put4(p + 16, r, c);
  }
}

/* pack and panel_bytes of a type; panel_bytes is the same in both rooms. */
#define PL_PANEL_BYTES(type, level, values) \
  int64_t pl_panel_bytes_##type##_##level(int64_t k) { return round64(k / values * BLOCK_##type); }
#define PL_PACK(type, level, block, values)                                                               \
  void pl_pack_##type##_##level(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) { \
    uint8_t *p = panel;                                                                                   \
    memset(panel, 0, (size_t)round64(k / values * BLOCK_##type));                                         \
    for (int64_t b = 0; b < k / values; b++, p += BLOCK_##type)                                           \
      for (int r = 0; r < nr; r++)                                                                        \
        row_##type((const block *)(const void *)((const uint8_t *)src + r * row_bytes) + b, p, r);        \
  }

/* ---- unpacking: register i of slot s of the planes at p, as signed bytes. Codes may come out times a power of two,
 * as the comment says; the sums are divided by it for nothing when they become floats. ---- */

PL_INLINE int8x16_t plane(const uint8_t *p, int n, int i) {
  return vreinterpretq_s8_u8(vld1q_u8(p + 64 * n + 16 * i));
}

/* nibbles 0 .. 15 */
PL_INLINE int8x16_t code_u4(const uint8_t *p, int s, int i) {
  uint8x16_t v = vld1q_u8(p + s % 4 * 64 + 16 * i);
  return vreinterpretq_s8_u8(s < 4 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4));
}
/* nibbles in the upper four bits */
PL_INLINE uint8x16_t upper4(const uint8_t *p, int s, int i) {
  uint8x16_t v = vld1q_u8(p + s % 4 * 64 + 16 * i);
  return s < 4 ? vshlq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(0xf0));
}
/* 16 (q - 8) */
PL_INLINE int8x16_t code_s4(const uint8_t *p, int s, int i) { return vreinterpretq_s8_u8(upper4(p, s, i)); }
/* 8 (q - 16): slots 0 .. 4 have planes of their own, the others are in pieces (put5) */
PL_INLINE int8x16_t code_s5(const uint8_t *p, int s, int i) {
  p += 16 * i;
  if (s < 5) return vreinterpretq_s8_u8(vshlq_n_u8(vld1q_u8(p + s * 64), 3));
  uint8x16_t v = vandq_u8(vld1q_u8(p + (s - 5) * 64), vdupq_n_u8(0xe0));
  if (s < 7) {
    v = vsriq_n_u8(v, vld1q_u8(p + (s - 2) * 64), 3);
  } else {
    v = vsriq_n_u8(v, vshlq_n_u8(vld1q_u8(p + 192), 2), 3);
    v = vsriq_n_u8(v, vshlq_n_u8(vld1q_u8(p + 256), 2), 4);
  }
  return vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(0xf8)));
}
/* 4 (q - 32): three slots of four in the lower six bits of a plane, the fourth in the rest of all three */
PL_INLINE int8x16_t code_s6(const uint8_t *p, int s, int i) {
  p += s / 4 * 192 + 16 * i;
  if (s % 4 < 3) return vreinterpretq_s8_u8(vshlq_n_u8(vld1q_u8(p + s % 4 * 64), 2));
  uint8x16_t v = vsriq_n_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(0xc0)), vld1q_u8(p + 64), 2);
  return vreinterpretq_s8_u8(vandq_u8(vsriq_n_u8(v, vld1q_u8(p + 128), 4), vdupq_n_u8(0xfc)));
}
/* 0 .. 3 */
PL_INLINE int8x16_t code_u2(const uint8_t *p, int s, int i) {
  uint8x16_t v = vld1q_u8(p + s / 4 * 64 + 16 * i);
  if (s % 4 == 1) v = vshrq_n_u8(v, 2);
  if (s % 4 == 2) v = vshrq_n_u8(v, 4);
  if (s % 4 == 3) return vreinterpretq_s8_u8(vshrq_n_u8(v, 6));
  return vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(3)));
}
/* 32 (q - 4): slots 0 .. 5 lie whole at the ends of planes, 6 and 7 are in pieces (put3) */
PL_INLINE int8x16_t code_s3(const uint8_t *p, int s, int i) {
  p += 16 * i;
  const uint8x16_t top = vdupq_n_u8(0xe0);
  if (s < 6) {
    uint8x16_t v = vld1q_u8(p + s / 2 * 64);
    return vreinterpretq_s8_u8(s % 2 ? vandq_u8(v, top) : vshlq_n_u8(v, 5));
  }
  uint8x16_t v = vshlq_n_u8(vld1q_u8(p + (s - 6) * 64), 3), lowest = vld1q_u8(p + 128);
  v = vsriq_n_u8(v, s == 6 ? vshlq_n_u8(lowest, 3) : vshlq_n_u8(lowest, 4), 2);
  return vreinterpretq_s8_u8(vandq_u8(v, top));
}
PL_INLINE int8x16_t code_s8(const uint8_t *p, int s, int i) { return plane(p, s, i); }
/* values of nibbles */
PL_INLINE int8x16_t code_iq4(const uint8_t *p, int s, int i) {
  return vqtbl1q_s8(vld1q_s8(values_iq4), vreinterpretq_u8_s8(code_u4(p, s, i)));
}
PL_INLINE int8x16_t code_e2m1(const uint8_t *p, int s, int i) {
  return vqtbl1q_s8(vld1q_s8(values_e2m1), vreinterpretq_u8_s8(code_u4(p, s, i)));
}

/* ---- floats ---- */

/* Sums start from the bits of 1.5 * 2^(23 - shift): read as a float they are that plus sum / 2^shift, exactly, as long as
 * |sum| < 2^22. A subtraction then does what the slow conversion from int32 would. */
#define PL_MAGIC(shift) (12582912.0f / (1 << (shift)))
#define PL_MAGIC_BITS(shift)                                                                 \
  {0x4b400000 - ((shift) << 23), 0x4b400000 - ((shift) << 23), 0x4b400000 - ((shift) << 23), \
   0x4b400000 - ((shift) << 23)}
PL_INLINE float32x4_t sum_float(int32x4_t sum, int shift) {
  return vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(PL_MAGIC(shift)));
}

/* Half floats of rows 4i .. 4i+3. */
PL_INLINE float32x4_t half4(const uint8_t *p, int i) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i)));
}

/* Bytes of rows 4i .. 4i+3, less zero, as floats: put below the bits of 2^23. */
PL_INLINE float32x4_t byte4(uint8x16_t v, int i, int zero) {
  static const uint8_t lanes[4][16] = {
      {0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 3, 255, 255, 255},
      {4, 255, 255, 255, 5, 255, 255, 255, 6, 255, 255, 255, 7, 255, 255, 255},
      {8, 255, 255, 255, 9, 255, 255, 255, 10, 255, 255, 255, 11, 255, 255, 255},
      {12, 255, 255, 255, 13, 255, 255, 255, 14, 255, 255, 255, 15, 255, 255, 255}};
  uint8x16_t bits = vqtbx1q_u8(vreinterpretq_u8_u32(vdupq_n_u32(0x4b000000)), v, vld1q_u8(lanes[i]));
  return vsubq_f32(vreinterpretq_f32_u8(bits), vdupq_n_f32(8388608.0f + (float)zero));
}

/* Half of the E8M0 scales of rows 4i .. 4i+3; the two smallest are subnormal. */
PL_INLINE float32x4_t e8m0_half4(const uint8_t *p, int i) {
  uint8x8_t b = vreinterpret_u8_u32(vld1_dup_u32((const uint32_t *)(const void *)(p + 4 * i)));
  int32x4_t e = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(b))));
  int32x4_t small = vshlq_s32(vdupq_n_s32(0x00200000), e);
  int32x4_t normal = vshlq_n_s32(vsubq_s32(e, vdupq_n_s32(1)), 23);
  return vreinterpretq_f32_s32(vbslq_s32(vcltq_s32(e, vdupq_n_s32(2)), small, normal));
}

/* acc = fma(idot, dw * da, acc) */
PL_INLINE float32x4_t scaled(float32x4_t idot, float32x4_t dw, float32x4_t da, float32x4_t acc) {
  return vfmaq_f32(acc, idot, vmulq_f32(dw, da));
}

#endif
