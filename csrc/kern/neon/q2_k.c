#include "kern/neon/mm.h"

/* Per 256 values of 16 rows: 16 scales, 16 scales of the minimums, then per 32 values: 16 bytes of scale and minimum
 * codes (low and high nibbles) of the first 16 and 16 of the last 16, 8 lines of two-bit codes (bits 2i and 2i+1 of
 * line j for value 4j + i). As large as the source. */
enum { SUB = 32 + 128, BLOCK = 64 + 8 * SUB };

int64_t pl_panel_bytes_Q2_K_neon(int64_t k) { return k / 256 * BLOCK; }

void pl_pack_Q2_K_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q2_K_neon(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q2_K *w = (const pl_block_q2_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      copy2(p + 32 + 2 * r, &w->dmin);
      for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 64 + j * SUB, q[32];
        s[r] = w->scales[2 * j];
        s[16 + r] = w->scales[2 * j + 1];
        codes_q2_k(w->qs, j, q);
        for (int i = 0; i < 32; i += 4)
          s[32 + 4 * i + r] = (uint8_t)(q[i] | q[i + 1] << 2 | q[i + 2] << 4 | q[i + 3] << 6);
      }
    }
}

/* 16 products of at most 3 * 127 fit in int16, and so do the scales. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  float32x4_t acc[4][4];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 64;
    for (int j = 0; j < 8; j++, w += SUB) {
      int32x4_t idot[4][4];
      sums16 min[4];
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        sums16 s[4];
        PL_UNROLL for (int i = 0; i < 16; i++) {
          uint8x16_t two = vld1q_u8(w + 32 + 64 * hi + i / 4 * 16);
          int8x16_t v =
              vreinterpretq_s8_u8(vandq_u8(vshlq_u8(two, vdupq_n_s8((int8_t)(-2 * (i % 4)))), vdupq_n_u8(3)));
          PL_UNROLL for (int t = 0; t < NT; t++) mac(&s[t], v, act(a, stride, t, b + j)->q + 16 * hi + i, i == 0);
        }
        uint8x16_t codes = vld1q_u8(w + 16 * hi);
        int16x8x2_t sc = shorts16(vreinterpretq_s8_u8(vandq_u8(codes, vdupq_n_u8(15))));
        PL_UNROLL for (int t = 0; t < NT; t++) scale_sums(idot[t], s[t], sc, !hi);
        min[hi] = shorts16(vreinterpretq_s8_u8(vshrq_n_u8(codes, 4)));
      }
      PL_UNROLL for (int t = 0; t < NT; t++) {
        const pl_q8 *x = act(a, stride, t, b + j);
        float32x4_t da = vdupq_n_f32(x->d);
        int32x4_t imin[4];
        PL_UNROLL for (int hi = 0; hi < 2; hi++) {
          int16x8_t h = vdupq_n_s16(x->h[hi]);
          scale_sums(imin, (sums16){{h, h}}, min[hi], !hi);
        }
        PL_UNROLL for (int i = 0; i < 4; i++) {
          acc[t][i] = scaled(idot[t][i], half4(block, 4 * i), da, acc[t][i]);
          acc[t][i] = vfmsq_f32(acc[t][i], vcvtq_f32_s32(imin[i]), vmulq_f32(half4(block + 32, 4 * i), da));
        }
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q2_K, neon)
