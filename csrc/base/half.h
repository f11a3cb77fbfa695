/* half.h: exact conversions between float32 and the 16-bit formats, in integer arithmetic. */
#ifndef PL_HALF_H
#define PL_HALF_H
#include <stdint.h>
#include <string.h>

static inline float pl_bits_f32(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint32_t pl_f32_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

/* IEEE binary16 -> binary32. */
static inline float pl_f16_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = (h >> 10) & 31, man = h & 0x3ff;
  if (exp == 31) return pl_bits_f32(sign | 0x7f800000u | man << 13 | (man ? 0x400000u : 0)); /* NaN made quiet */
  if (exp) return pl_bits_f32(sign | (exp + 112) << 23 | man << 13);
  float f = (float)man * 5.9604644775390625e-8f; /* subnormal: man * 2^-24 */
  return sign ? -f : f;
}

/* binary32 -> binary16, round to nearest even, overflow to infinity. */
static inline uint16_t pl_f32_f16(float f) {
  uint32_t u = pl_f32_bits(f), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00);
  if (a < 0x38800000u) { /* subnormal or zero: add 0.5 so that the float adder rounds at bit 2^-24 */
    uint32_t r = pl_f32_bits(pl_bits_f32(a) + 0.5f) - 0x3f000000u;
    return (uint16_t)(sign | r);
  }
  return (uint16_t)(sign | (a - 0x38000000u + 0xfff + (a >> 13 & 1)) >> 13);
}

/* binary32 -> bfloat16, round to nearest even, NaN made quiet. */
static inline uint16_t pl_f32_bf16(float f) {
  uint32_t u = pl_f32_bits(f);
  if ((u & 0x7fffffff) > 0x7f800000u) return (uint16_t)(u >> 16 | 64);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float pl_bf16_f32(uint16_t h) { return pl_bits_f32((uint32_t)h << 16); }

/* Half of an E8M0 scale: 2^(e - 128), subnormal for the two smallest. */
static inline float pl_e8m0_half(uint8_t e) {
  return pl_bits_f32(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* Half of an unsigned E4M3 scale (bias 7; 0x7f, which is NaN, counts as 0). */
static inline float pl_ue4m3_half(uint8_t x) {
  int exp = x >> 3 & 15, man = x & 7;
  if (x == 0x7f) return 0;
  if (!exp) return (float)man * 0x1p-10f;
  return (float)(8 + man) * pl_bits_f32((uint32_t)(exp + 127 - 11) << 23);
}

#endif
