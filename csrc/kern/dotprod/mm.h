/* mm.h: what the matrix kernels with sdot share. A lane is a row: sdot adds the products of four codes with four
 * activations to it. A register is 4 rows times one token; a tile is 16 rows times up to 4 tokens. Kernels of float
 * weights stay those of the NEON room. */
#ifndef PL_DOTPROD_MM_H
#define PL_DOTPROD_MM_H
#define PL_E 4
#include "kern/dotprod/panel.h"

enum { PL_REGS = 4, PL_COLS = 4 }; /* registers per column of a tile, columns of the largest tile */
#define PL_COLS_OF(NT) (NT)        /* columns: tokens */

/* What belongs to column t, in every lane: scale, sum of block b times it, integer sums of the halves of its codes. */
PL_INLINE float32x4_t col_d(const uint8_t *a, int64_t stride, int t, int64_t b, const int NT) {
  return vld1q_dup_f32(&act(a, stride, t, b)->d);
}
PL_INLINE float32x4_t col_s(const uint8_t *a, int64_t stride, int t, int64_t b, const int NT) {
  return vld1q_dup_f32(&act(a, stride, t, b)->s);
}
PL_INLINE int32x4_t col_h(const uint8_t *a, int64_t stride, int t, int64_t b, const int NT, int hi) {
  return vdupq_n_s32(act(a, stride, t, b)->h[hi]);
}

/* What belongs to the rows of register i, of v [4], 4 rows each. */
PL_INLINE float32x4_t rows_of(const float32x4_t v[4], int i) { return v[i]; }

PL_INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t w, int8x16_t x, int lane) {
  return lane == 0   ? vdotq_laneq_s32(sum, w, x, 0)
         : lane == 1 ? vdotq_laneq_s32(sum, w, x, 1)
         : lane == 2 ? vdotq_laneq_s32(sum, w, x, 2)
                     : vdotq_laneq_s32(sum, w, x, 3);
}

/* idot [columns][4] += values 16 hi .. 16 hi + 15, whose codes CODE finds at w, times block b */
#define PL_DOT_HALF(CODE, w, hi, b)                                                              \
  do {                                                                                           \
    int8x16_t x[PL_COLS];                                                                        \
    PL_UNROLL for (int t = 0; t < NT; t++) x[t] = vld1q_s8(act(a, stride, t, b)->q + 16 * (hi)); \
    PL_UNROLL for (int q = 0; q < 4; q++) PL_UNROLL for (int i = 0; i < 4; i++) {                \
      int8x16_t v = CODE(w, 4 * (hi) + q, i);                                                    \
      PL_UNROLL for (int t = 0; t < NT; t++) idot[t][i] = dot_lane(idot[t][i], v, x[t], q);      \
    }                                                                                            \
  } while (0)

PL_INLINE void load_tile(const float *y, const int32_t *at, float32x4_t acc[][PL_REGS], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int i = 0; i < 4; i++) acc[t][i] =
      vld1q_f32(y + at[t] * PL_PANEL + 4 * i);
}

PL_INLINE void store_tile(float *y, const int32_t *at, float32x4_t acc[][PL_REGS], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int i = 0; i < 4; i++)
      vst1q_f32(y + at[t] * PL_PANEL + 4 * i, acc[t][i]);
}

#include "kern/dotprod/tiles.h"
#endif
