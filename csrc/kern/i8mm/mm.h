/* mm.h: what the matrix kernels with smmla share. A register is 2 rows times 2 tokens, in lanes (row 0, token 0), (0, 1),
 * (1, 0), (1, 1): smmla adds the products of eight codes with eight activations to each. A tile is 16 rows times up to
 * 4 tokens, in columns of two; an odd one out takes part twice. Sizes of panels are those of the dotprod room, and
 * kernels of float weights those of the NEON room. */
#ifndef PL_I8MM_MM_H
#define PL_I8MM_MM_H
#define PL_E 8
#include "kern/dotprod/panel.h"

enum { PL_REGS = 8, PL_COLS = 2 };      /* registers per column of a tile, columns of the largest tile */
#define PL_COLS_OF(NT) (((NT) + 1) / 2) /* columns: pairs of tokens */

/* Blocks b of the two tokens of column c. */
PL_INLINE const pl_q8 *token0(const uint8_t *a, int64_t stride, int c, int64_t b) {
  return act(a, stride, 2 * c, b);
}
PL_INLINE const pl_q8 *token1(const uint8_t *a, int64_t stride, int c, int64_t b, const int NT) {
  return act(a, stride, 2 * c + 1 < NT ? 2 * c + 1 : 2 * c, b);
}

/* What belongs to the tokens of column c, in their lanes: scale, sum of block b times it, integer sums of the halves of
 * its codes. */
PL_INLINE float32x4_t two(const float *v0, const float *v1) {
  float32x2_t v = vld1_lane_f32(v1, vld1_dup_f32(v0), 1);
  return vcombine_f32(v, v);
}
PL_INLINE float32x4_t col_d(const uint8_t *a, int64_t stride, int c, int64_t b, const int NT) {
  return two(&token0(a, stride, c, b)->d, &token1(a, stride, c, b, NT)->d);
}
PL_INLINE float32x4_t col_s(const uint8_t *a, int64_t stride, int c, int64_t b, const int NT) {
  return two(&token0(a, stride, c, b)->s, &token1(a, stride, c, b, NT)->s);
}
PL_INLINE int32x4_t col_h(const uint8_t *a, int64_t stride, int c, int64_t b, const int NT, int hi) {
  int32x2_t v = vset_lane_s32(token1(a, stride, c, b, NT)->h[hi], vdup_n_s32(token0(a, stride, c, b)->h[hi]), 1);
  return vcombine_s32(v, v);
}

/* What belongs to the rows of register i, of v [4], 4 rows each. */
PL_INLINE float32x4_t rows_of(const float32x4_t v[4], int i) {
  return i % 2 ? vzip2q_f32(v[i / 2], v[i / 2]) : vzip1q_f32(v[i / 2], v[i / 2]);
}

/* idot [columns][8] += values 16 hi .. 16 hi + 15, whose codes CODE finds at w, times block b */
#define PL_DOT_HALF(CODE, w, hi, b)                                                                       \
  do {                                                                                                    \
    int8x16_t x[2][PL_COLS];                                                                              \
    PL_UNROLL for (int c = 0; c < PL_COLS_OF(NT); c++) {                                                  \
      int64x2_t x0 = vreinterpretq_s64_s8(vld1q_s8(token0(a, stride, c, b)->q + 16 * (hi)));              \
      int64x2_t x1 = vreinterpretq_s64_s8(vld1q_s8(token1(a, stride, c, b, NT)->q + 16 * (hi)));          \
      x[0][c] = vreinterpretq_s8_s64(vzip1q_s64(x0, x1));                                                 \
      x[1][c] = vreinterpretq_s8_s64(vzip2q_s64(x0, x1));                                                 \
    }                                                                                                     \
    PL_UNROLL for (int o = 0; o < 2; o++) PL_UNROLL for (int i = 0; i < 8; i++) {                         \
      int8x16_t v = CODE(w, 2 * (hi) + o + i / 4 * 4, i % 4);                                             \
      PL_UNROLL for (int c = 0; c < PL_COLS_OF(NT); c++) idot[c][i] = vmmlaq_s32(idot[c][i], v, x[o][c]); \
    }                                                                                                     \
  } while (0)

PL_INLINE void load_tile(const float *y, const int32_t *at, float32x4_t acc[][PL_REGS], const int NT) {
  PL_UNROLL for (int c = 0; c < PL_COLS_OF(NT); c++) PL_UNROLL for (int i = 0; i < 4; i++) {
    float32x4_t v0 = vld1q_f32(y + at[2 * c] * PL_PANEL + 4 * i);
    float32x4_t v1 = vld1q_f32(y + at[2 * c + 1 < NT ? 2 * c + 1 : 2 * c] * PL_PANEL + 4 * i);
    acc[c][2 * i] = vzip1q_f32(v0, v1);
    acc[c][2 * i + 1] = vzip2q_f32(v0, v1);
  }
}

PL_INLINE void store_tile(float *y, const int32_t *at, float32x4_t acc[][PL_REGS], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int i = 0; i < 4; i++) {
    float32x4_t v0 = acc[t / 2][2 * i], v1 = acc[t / 2][2 * i + 1];
    vst1q_f32(y + at[t] * PL_PANEL + 4 * i, t % 2 ? vuzp2q_f32(v0, v1) : vuzp1q_f32(v0, v1));
  }
}

#include "kern/dotprod/tiles.h"
#endif
