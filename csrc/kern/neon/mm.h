/* mm.h: what the NEON matrix kernels share.
 *
 * The base architecture multiplies bytes into int16 and has no dot product, so a panel keeps its 16 rows in the 16
 * lanes of a register, one k after the other: one byte of the activation times 16 weights. Quantized panels are a
 * sequence of blocks of 32 values: scales of 16 rows, then codes in lines of 16 bytes, byte r for row r. Nibble
 * line i holds value i in its low and 16 + i in its high nibbles. Codes are stored centred around zero, in two's
 * complement, so that products add up in int16 as long as possible; a type whose codes are not centred makes up
 * for it with the activation's sums. Cycles of the loops over blocks: bench/mca.md. */
#ifndef PL_NEON_MM_H
#define PL_NEON_MM_H
#include <arm_neon.h>

#include "kern/ref/codes.h"
#include "kern/tile.h"

/* Sums of 16 rows in int16. */
typedef int16x8x2_t sums16;

/* s += w [16 rows] * x */
PL_INLINE void mac(sums16 *s, int8x16_t w, const int8_t *x, int first) {
  int8x16_t a = vld1q_dup_s8(x);
  if (first) {
    s->val[0] = vmull_s8(vget_low_s8(w), vget_low_s8(a));
    s->val[1] = vmull_high_s8(w, a);
  } else {
    s->val[0] = vmlal_s8(s->val[0], vget_low_s8(w), vget_low_s8(a));
    s->val[1] = vmlal_high_s8(s->val[1], w, a);
  }
}

/* idot [4] += s, or = s at first */
PL_INLINE void widen(int32x4_t idot[4], sums16 s, int first) {
  PL_UNROLL for (int h = 0; h < 2; h++) {
    idot[2 * h] = first ? vmovl_s16(vget_low_s16(s.val[h])) : vaddw_s16(idot[2 * h], vget_low_s16(s.val[h]));
    idot[2 * h + 1] = first ? vmovl_high_s16(s.val[h]) : vaddw_high_s16(idot[2 * h + 1], s.val[h]);
  }
}

PL_INLINE int8x16_t line(const uint8_t *p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
PL_INLINE int8x16_t low_nibble(int8x16_t v) { return vshrq_n_s8(vshlq_n_s8(v, 4), 4); }
PL_INLINE int8x16_t high_nibble(int8x16_t v) { return vshrq_n_s8(v, 4); }

/* idot [NT][4] = 4-bit codes -8 .. 7 (16 nibble lines) . block b: 32 products of at most 8 * 127 fit in int16. */
PL_INLINE void dot_s4(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, int32x4_t idot[][4],
                      const int NT) {
  sums16 s[4];
  PL_UNROLL for (int i = 0; i < 16; i++) {
    int8x16_t w = line(codes + 16 * i);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      const pl_q8 *x = act(a, stride, t, b);
      mac(&s[t], low_nibble(w), x->q + i, i == 0);
      mac(&s[t], high_nibble(w), x->q + 16 + i, 0);
    }
  }
  PL_UNROLL for (int t = 0; t < NT; t++) widen(idot[t], s[t], 1);
}

/* A nibble below sign bits (all ones or zeros). */
PL_INLINE int8x16_t under(uint8x16_t sign, int8x16_t nibble) {
  return vreinterpretq_s8_u8(vbslq_u8(vdupq_n_u8(0xf0), sign, vreinterpretq_u8_s8(nibble)));
}

/* idot [NT][4] = 5-bit codes -16 .. 15 (4 lines of sign bits, bit i of line j for value 8 j + i, then 16 nibble
 * lines) . block b: 16 products of at most 16 * 127 fit in int16. */
PL_INLINE void dot_s5(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, int32x4_t idot[][4],
                      const int NT) {
  PL_UNROLL for (int hi = 0; hi < 2; hi++) {
    sums16 s[4];
    PL_UNROLL for (int i = 0; i < 16; i++) {
      uint8x16_t sign = vtstq_u8(vld1q_u8(codes + 32 * hi + i / 8 * 16), vdupq_n_u8((uint8_t)(1 << i % 8)));
      int8x16_t w = line(codes + 64 + 16 * i);
      w = under(sign, hi ? vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(w), 4)) : w);
      PL_UNROLL for (int t = 0; t < NT; t++) mac(&s[t], w, act(a, stride, t, b)->q + 16 * hi + i, i == 0);
    }
    PL_UNROLL for (int t = 0; t < NT; t++) widen(idot[t], s[t], !hi);
  }
}

/* idot [NT][4] = the values of IQ4 codes (16 nibble lines) . block b: two products of at most 127 * 127 fit in int16. */
PL_INLINE void dot_iq4(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, int32x4_t idot[][4],
                       const int NT) {
  const int8x16_t value = vld1q_s8(values_iq4);
  PL_UNROLL for (int i = 0; i < 16; i++) {
    uint8x16_t w = vld1q_u8(codes + 16 * i);
    int8x16_t lo = vqtbl1q_s8(value, vandq_u8(w, vdupq_n_u8(15))), hi = vqtbl1q_s8(value, vshrq_n_u8(w, 4));
    PL_UNROLL for (int t = 0; t < NT; t++) {
      const pl_q8 *x = act(a, stride, t, b);
      sums16 s;
      mac(&s, lo, x->q + i, 1);
      mac(&s, hi, x->q + 16 + i, 0);
      widen(idot[t], s, i == 0);
    }
  }
}

/* idot [4] += s * scale, or = at first: 16 rows each */
PL_INLINE void scale_sums(int32x4_t idot[4], sums16 s, int16x8x2_t scale, int first) {
  PL_UNROLL for (int h = 0; h < 2; h++) {
    int16x4_t lo = vget_low_s16(s.val[h]), sc = vget_low_s16(scale.val[h]);
    idot[2 * h] = first ? vmull_s16(lo, sc) : vmlal_s16(idot[2 * h], lo, sc);
    idot[2 * h + 1] =
        first ? vmull_high_s16(s.val[h], scale.val[h]) : vmlal_high_s16(idot[2 * h + 1], s.val[h], scale.val[h]);
  }
}

/* centre * (sum of the block's activations), what codes stored less centre lack */
PL_INLINE int32x4_t lacking(const pl_q8 *x, int centre) { return vdupq_n_s32(centre * (x->h[0] + x->h[1])); }

/* Half floats of four rows, r = 0, 4, 8, 12. */
PL_INLINE float32x4_t half4(const uint8_t *p, int r) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 2 * r)));
}

/* Unsigned and signed bytes of 16 rows as int32. */
PL_INLINE void bytes16(const uint8_t *p, int32x4_t v[4]) {
  uint8x16_t b = vld1q_u8(p);
  uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_high_u8(b);
  v[0] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo)));
  v[1] = vreinterpretq_s32_u32(vmovl_high_u16(lo));
  v[2] = vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi)));
  v[3] = vreinterpretq_s32_u32(vmovl_high_u16(hi));
}
PL_INLINE void sbytes16(const uint8_t *p, int32x4_t v[4]) {
  int8x16_t b = line(p);
  int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_high_s8(b);
  v[0] = vmovl_s16(vget_low_s16(lo));
  v[1] = vmovl_high_s16(lo);
  v[2] = vmovl_s16(vget_low_s16(hi));
  v[3] = vmovl_high_s16(hi);
}

/* Bytes of 16 rows as int16. */
PL_INLINE int16x8x2_t shorts16(int8x16_t v) { return (int16x8x2_t){{vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v)}}; }

/* Half of 16 E8M0 scales; the two smallest are subnormal. */
PL_INLINE void e8m0_half16(const uint8_t *p, float32x4_t d[4]) {
  int32x4_t e[4];
  bytes16(p, e);
  PL_UNROLL for (int i = 0; i < 4; i++) {
    int32x4_t small = vshlq_s32(vdupq_n_s32(0x00200000), e[i]);
    int32x4_t normal = vshlq_n_s32(vsubq_s32(e[i], vdupq_n_s32(1)), 23);
    d[i] = vreinterpretq_f32_s32(vbslq_s32(vcltq_s32(e[i], vdupq_n_s32(2)), small, normal));
  }
}

/* fma((float)idot, dw * da, acc) */
PL_INLINE float32x4_t scaled(int32x4_t idot, float32x4_t dw, float32x4_t da, float32x4_t acc) {
  return vfmaq_f32(acc, vcvtq_f32_s32(idot), vmulq_f32(dw, da));
}

PL_INLINE void load_tile(const float *y, const int32_t *at, float32x4_t acc[][4], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int i = 0; i < 4; i++) acc[t][i] =
      vld1q_f32(y + at[t] * PL_PANEL + 4 * i);
}

PL_INLINE void store_tile(float *y, const int32_t *at, float32x4_t acc[][4], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int i = 0; i < 4; i++)
      vst1q_f32(y + at[t] * PL_PANEL + 4 * i, acc[t][i]);
}

#endif
