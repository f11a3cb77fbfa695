#include "kern/neon/mm.h"
#include "kern/ref/scale_k.h"

/* Per 256 values of 16 rows: 16 scales, then per 32 values: 16 scale codes of the first 16 and 16 of the last 16, 8
 * lines of low bits (bits 2i and 2i+1 of line j for value 4j + i), 4 lines of sign bits (bit i of line j for value 8j +
 * i). The 6-bit scale codes become bytes: 1824 bytes for 1760. */
enum { SUB = 32 + 128 + 64, BLOCK = 32 + 8 * SUB };

int64_t pl_panel_bytes_Q3_K_neon(int64_t k) { return round64(k / 256 * BLOCK); }

void pl_pack_Q3_K_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  memset(panel, 0, (size_t)pl_panel_bytes_Q3_K_neon(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q3_K *w = (const pl_block_q3_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 32 + j * SUB, q[32];
        s[r] = (uint8_t)scale_q3(w->scales, 2 * j);
        s[16 + r] = (uint8_t)scale_q3(w->scales, 2 * j + 1);
        codes_q3_k(w, j, q);
        for (int i = 0; i < 32; i++) {
          s[32 + i / 4 * 16 + r] |= (uint8_t)((q[i] & 3) << i % 4 * 2);
          s[160 + i / 8 * 16 + r] |= (uint8_t)((q[i] >> 2 ^ 1) << i % 8);
        }
      }
    }
}

/* 16 products of at most 4 * 127 fit in int16, and so do the scales. */
PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  float32x4_t acc[4][4];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      int32x4_t idot[4][4];
      PL_UNROLL for (int hi = 0; hi < 2; hi++) {
        sums16 s[4];
        PL_UNROLL for (int i = 0; i < 16; i++) {
          uint8x16_t two = vld1q_u8(w + 32 + 64 * hi + i / 4 * 16), one = vld1q_u8(w + 160 + 32 * hi + i / 8 * 16);
          uint8x16_t sign = vtstq_u8(one, vdupq_n_u8((uint8_t)(1 << i % 8)));
          two = vshlq_u8(two, vdupq_n_s8((int8_t)(-2 * (i % 4))));
          int8x16_t v = vreinterpretq_s8_u8(vbslq_u8(vdupq_n_u8(0xfc), sign, two));
          PL_UNROLL for (int t = 0; t < NT; t++) mac(&s[t], v, act(a, stride, t, b + j)->q + 16 * hi + i, i == 0);
        }
        int16x8x2_t sc = shorts16(line(w + 16 * hi));
        PL_UNROLL for (int t = 0; t < NT; t++) scale_sums(idot[t], s[t], sc, !hi);
      }
      PL_UNROLL for (int t = 0; t < NT; t++) {
        float32x4_t da = vdupq_n_f32(act(a, stride, t, b + j)->d);
        PL_UNROLL for (int i = 0; i < 4; i++) acc[t][i] = scaled(idot[t][i], half4(block, 4 * i), da, acc[t][i]);
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q3_K, neon)
