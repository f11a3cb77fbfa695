/* tiles.h: the tiles of the dotprod and i8mm rooms, in terms of what their mm.h define: columns of PL_REGS registers, the
 * dot products of half a block, and what belongs to columns and to rows. The loop over blocks is the hot one of each
 * kernel; bench/mca.md has its cycles. */

#define PL_EACH(c, i) \
  PL_UNROLL for (int c = 0; c < PL_COLS_OF(NT); c++) PL_UNROLL for (int i = 0; i < PL_REGS; i++)

/* idot = all 32 values, whose codes CODE finds at w, times block b, from START times the sum of its codes on; in units
 * of 2^-SHIFT */
#define PL_DOT(CODE, w, START, SHIFT, b)                                                   \
  PL_UNROLL for (int c = 0; c < PL_COLS_OF(NT); c++) {                                     \
    int32x4_t h = vaddq_s32(col_h(a, stride, c, b, NT, 0), col_h(a, stride, c, b, NT, 1)); \
    PL_BEGIN(c, h, START, SHIFT);                                                          \
  }                                                                                        \
  PL_DOT_HALF(CODE, w, 0, b);                                                              \
  PL_DOT_HALF(CODE, w, 1, b)

/* The sums of column c start from the bits of PL_MAGIC and START times h. They are read from memory: copying a register
 * takes a slot of the vector pipes, which are busy, and a volatile read is done each time. */
#define PL_BEGIN(c, h, START, SHIFT)                                                \
  do {                                                                              \
    static const volatile int32x4_t magic = PL_MAGIC_BITS(SHIFT);                   \
    volatile int32x4_t start;                                                       \
    if (START) start = vmlaq_n_s32(magic, h, START);                                \
    PL_UNROLL for (int i = 0; i < PL_REGS; i++) idot[c][i] = START ? start : magic; \
  } while (0)

/* acc += idot * (d * scale of the activations), d being that of the rows */
#define PL_SCALE(d, SHIFT, b) \
  PL_EACH(c, i)               \
  acc[c][i] = scaled(sum_float(idot[c][i], SHIFT), rows_of(d, i), col_d(a, stride, c, b, NT), acc[c][i])

/* Blocks of scales and codes: Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4. SCALE(w, i): scales of rows 4i .. 4i+3; CODES: where the
 * codes start. */
#define PL_TILE_ZERO(BLOCK, SCALE, CODES, START, SHIFT, CODE)                                                     \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    float32x4_t acc[PL_COLS][PL_REGS];                                                                            \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {                                                            \
      int32x4_t idot[PL_COLS][PL_REGS];                                                                           \
      PL_DOT(CODE, w + CODES, START, SHIFT, b);                                                                   \
      const float32x4_t d[4] = {SCALE(w, 0), SCALE(w, 1), SCALE(w, 2), SCALE(w, 3)};                              \
      PL_SCALE(d, SHIFT, b);                                                                                      \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of scales, minimums and codes: Q4_1, Q5_1. */
#define PL_TILE_MIN(BLOCK, START, SHIFT, CODE)                                                                    \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    float32x4_t acc[PL_COLS][PL_REGS];                                                                            \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {                                                            \
      int32x4_t idot[PL_COLS][PL_REGS];                                                                           \
      PL_DOT(CODE, w + 64, START, SHIFT, b);                                                                      \
      const float32x4_t d[4] = {half4(w, 0), half4(w, 1), half4(w, 2), half4(w, 3)};                              \
      const float32x4_t m[4] = {half4(w, 4), half4(w, 5), half4(w, 6), half4(w, 7)};                              \
      PL_SCALE(d, SHIFT, b);                                                                                      \
      PL_EACH(c, i) acc[c][i] = vfmaq_f32(acc[c][i], rows_of(m, i), col_s(a, stride, c, b, NT));                  \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of 256 in sub-blocks of 32 with byte scales and minimums: Q4_K, Q5_K. */
#define PL_TILE_K(SUB, START, SHIFT, CODE)                                                                        \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    float32x4_t acc[PL_COLS][PL_REGS];                                                                            \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b += 8) {                                                                     \
      const uint8_t *block = w;                                                                                   \
      w += 64;                                                                                                    \
      for (int j = 0; j < 8; j++, w += SUB) {                                                                     \
        int32x4_t idot[PL_COLS][PL_REGS];                                                                         \
        PL_DOT(CODE, w + 32, START, SHIFT, b + j);                                                                \
        float32x4_t d[4], m[4];                                                                                   \
        PL_UNROLL for (int i = 0; i < 4; i++) {                                                                   \
          d[i] = vmulq_f32(half4(block, i), byte4(vld1q_u8(w), i, 0));                                            \
          m[i] = vmulq_f32(half4(block, 4 + i), byte4(vld1q_u8(w + 16), i, 0));                                   \
        }                                                                                                         \
        PL_SCALE(d, SHIFT, b + j);                                                                                \
        PL_EACH(c, i) acc[c][i] = vfmsq_f32(acc[c][i], rows_of(m, i), col_s(a, stride, c, b + j, NT));            \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Blocks of 256 in sub-blocks of 32 with a signed byte scale: IQ4_XS. */
#define PL_TILE_XS(SUB, CODE)                                                                                     \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    float32x4_t acc[PL_COLS][PL_REGS];                                                                            \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b += 8) {                                                                     \
      const uint8_t *block = w;                                                                                   \
      w += 32;                                                                                                    \
      for (int j = 0; j < 8; j++, w += SUB) {                                                                     \
        int32x4_t idot[PL_COLS][PL_REGS];                                                                         \
        PL_DOT(CODE, w + 16, 0, 0, b + j);                                                                        \
        float32x4_t d[4];                                                                                         \
        PL_UNROLL for (int i = 0; i < 4; i++) d[i] = vmulq_f32(half4(block, i), byte4(vld1q_u8(w), i, 128));      \
        PL_SCALE(d, 0, b + j);                                                                                    \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }

/* Sub-blocks of 32 with a byte scale for each half: Q2_K, Q3_K, Q6_K. idot = sc0 * (first 16) + sc1 * (last 16) is made
 * of floats: its parts and itself are integers below 2^24, so it is exact. HEAD: bytes of scales at the start of a
 * block; START times h[hi] is what the sum of half hi starts from; SC(w, hi, i): scales of rows 4i .. 4i+3; MORE: what
 * is left to do with acc. */
#define PL_TILE_16(HEAD, SUB, START, SHIFT, CODE, SC, MORE)                                                       \
  PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at, \
                      const int NT) {                                                                             \
    float32x4_t acc[PL_COLS][PL_REGS];                                                                            \
    load_tile(y, at, acc, NT);                                                                                    \
    for (int64_t b = 0; b < k / 32; b += 8) {                                                                     \
      const uint8_t *block = w;                                                                                   \
      w += HEAD;                                                                                                  \
      for (int j = 0; j < 8; j++, w += SUB) {                                                                     \
        int32x4_t idot[PL_COLS][PL_REGS];                                                                         \
        float32x4_t sum[PL_COLS][PL_REGS];                                                                        \
        PL_UNROLL for (int hi = 0; hi < 2; hi++) {                                                                \
          PL_UNROLL for (int c = 0; c < PL_COLS_OF(NT); c++)                                                      \
              PL_BEGIN(c, col_h(a, stride, c, b + j, NT, hi), START, SHIFT);                                      \
          PL_DOT_HALF(CODE, w + 32, hi, b + j);                                                                   \
          const float32x4_t sc[4] = {SC(w, hi, 0), SC(w, hi, 1), SC(w, hi, 2), SC(w, hi, 3)};                     \
          PL_EACH(c, i) {                                                                                         \
            float32x4_t s = sum_float(idot[c][i], SHIFT), r = rows_of(sc, i);                                     \
            sum[c][i] = hi ? vfmaq_f32(sum[c][i], s, r) : vmulq_f32(s, r);                                        \
          }                                                                                                       \
        }                                                                                                         \
        const float32x4_t d[4] = {half4(block, 0), half4(block, 1), half4(block, 2), half4(block, 3)};            \
        PL_EACH(c, i)                                                                                             \
        acc[c][i] = scaled(sum[c][i], rows_of(d, i), col_d(a, stride, c, b + j, NT), acc[c][i]);                  \
        MORE(block, w, b + j)                                                                                     \
      }                                                                                                           \
    }                                                                                                             \
    store_tile(y, at, acc, NT);                                                                                   \
  }
#define PL_NO_MORE(block, w, b)

PL_INLINE float32x4_t signed_scale(const uint8_t *w, int hi, int i) {
  return byte4(vld1q_u8(w + 16 * hi), i, 128);
}

/* Q2_K: scales are low nibbles, minimums high ones; (float)(m0 * h0 + m1 * h1) is made of floats as well. */
PL_INLINE float32x4_t low_scale(const uint8_t *w, int hi, int i) {
  return byte4(vandq_u8(vld1q_u8(w + 16 * hi), vdupq_n_u8(15)), i, 0);
}
PL_INLINE float32x4_t high_scale(const uint8_t *w, int hi, int i) {
  return byte4(vshrq_n_u8(vld1q_u8(w + 16 * hi), 4), i, 0);
}
#define PL_MINIMUMS(block, w, b)                                                             \
  float32x4_t m0[4], m1[4], dmin[4];                                                         \
  PL_UNROLL for (int i = 0; i < 4; i++) {                                                    \
    m0[i] = high_scale(w, 0, i), m1[i] = high_scale(w, 1, i), dmin[i] = half4(block, 4 + i); \
  }                                                                                          \
  PL_UNROLL for (int c = 0; c < PL_COLS_OF(NT); c++) {                                       \
    float32x4_t h0 = vcvtq_f32_s32(col_h(a, stride, c, b, NT, 0)),                           \
                h1 = vcvtq_f32_s32(col_h(a, stride, c, b, NT, 1));                           \
    float32x4_t da = col_d(a, stride, c, b, NT);                                             \
    PL_UNROLL for (int i = 0; i < PL_REGS; i++) {                                            \
      float32x4_t m = vfmaq_f32(vmulq_f32(rows_of(m0, i), h0), rows_of(m1, i), h1);          \
      acc[c][i] = vfmsq_f32(acc[c][i], m, vmulq_f32(rows_of(dmin, i), da));                  \
    }                                                                                        \
  }
