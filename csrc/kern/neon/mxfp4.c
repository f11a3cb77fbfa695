#include "kern/neon/mm.h"

/* Per 32 values of 16 rows: 16 bytes of scales, 16 nibble lines. As large as the source. */
enum { BLOCK = 16 * sizeof(pl_block_mxfp4) };

int64_t pl_panel_bytes_MXFP4_neon(int64_t k) { return round64(k / 32 * BLOCK); }

void pl_pack_MXFP4_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  memset(panel, 0, (size_t)pl_panel_bytes_MXFP4_neon(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 32; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_mxfp4 *w = (const pl_block_mxfp4 *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      p[r] = w->e;
      for (int i = 0; i < 16; i++) p[16 + 16 * i + r] = w->qs[i];
    }
}

/* 16 products of at most 12 * 127 fit in int16. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  const int8x16_t value = vld1q_s8(values_e2m1);
  float32x4_t acc[4][4];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {
    int32x4_t idot[4][4];
    float32x4_t dw[4];
    PL_UNROLL for (int g = 0; g < 2; g++) {
      sums16 s[4];
      PL_UNROLL for (int i = 8 * g; i < 8 * g + 8; i++) {
        uint8x16_t v = vld1q_u8(w + 16 + 16 * i);
        int8x16_t lo = vqtbl1q_s8(value, vandq_u8(v, vdupq_n_u8(15))), hi = vqtbl1q_s8(value, vshrq_n_u8(v, 4));
        PL_UNROLL for (int t = 0; t < NT; t++) {
          const pl_q8 *x = act(a, stride, t, b);
          mac(&s[t], lo, x->q + i, i == 8 * g);
          mac(&s[t], hi, x->q + 16 + i, 0);
        }
      }
      PL_UNROLL for (int t = 0; t < NT; t++) widen(idot[t], s[t], !g);
    }
    e8m0_half16(w, dw);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      float32x4_t da = vdupq_n_f32(act(a, stride, t, b)->d);
      PL_UNROLL for (int i = 0; i < 4; i++) acc[t][i] = scaled(idot[t][i], dw[i], da, acc[t][i]);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(MXFP4, neon)
