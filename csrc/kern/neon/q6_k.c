#include "kern/neon/mm.h"

/* Per 256 values of 16 rows: 16 scales, then per 32 values: 16 scale codes of the first 16 and 16 of the last 16,
 * 8 lines of upper bits (bits 2i and 2i+1 of line j for value 4j + i, inverted at the top so that they are a
 * sign), 16 nibble lines. As large as the source. */
enum { SUB = 32 + 128 + 256, BLOCK = 32 + 8 * SUB };

int64_t pl_panel_bytes_Q6_K_neon(int64_t k) { return round64(k / 256 * BLOCK); }

void pl_pack_Q6_K_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q6_K_neon(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q6_K *w = (const pl_block_q6_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 32 + j * SUB;
        s[r] = (uint8_t)w->scales[2 * j];
        s[16 + r] = (uint8_t)w->scales[2 * j + 1];
        const uint8_t *ql = w->ql + j / 4 * 64 + j % 2 * 32, *qh = w->qh + j / 4 * 32;
        for (int i = 0; i < 8; i++) {
          uint32_t bits = 0;
          for (int v = 0; v < 4; v++) bits |= (uint32_t)((qh[4 * i + v] >> j % 4 * 2 & 3) ^ 2) << 2 * v;
          s[32 + 16 * i + r] = (uint8_t)bits;
        }
        for (int i = 0; i < 16; i++)
          s[160 + 16 * i + r] = (uint8_t)((ql[i] >> j % 4 / 2 * 4 & 15) | (ql[16 + i] >> j % 4 / 2 * 4 & 15) << 4);
      }
    }
}

/* Eight products of at most 32 * 127 fit in int16. */
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
        int32x4_t sum[4][4], sc[4];
        PL_UNROLL for (int q = 0; q < 2; q++) {
          sums16 s[4];
          PL_UNROLL for (int i = 8 * q; i < 8 * q + 8; i++) {
            int8x16_t up = line(w + 32 + 64 * hi + i / 4 * 16), v = line(w + 160 + 16 * i);
            up = vshrq_n_s8(vshlq_s8(up, vdupq_n_s8((int8_t)(6 - 2 * (i % 4)))), 2);
            if (hi) v = vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(v), 4));
            v = under(vreinterpretq_u8_s8(up), v);
            PL_UNROLL for (int t = 0; t < NT; t++)
                mac(&s[t], v, act(a, stride, t, b + j)->q + 16 * hi + i, i == 8 * q);
          }
          PL_UNROLL for (int t = 0; t < NT; t++) widen(sum[t], s[t], q == 0);
        }
        sbytes16(w + 16 * hi, sc);
        PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int i = 0; i < 4; i++) idot[t][i] =
            hi ? vmlaq_s32(idot[t][i], sum[t][i], sc[i]) : vmulq_s32(sum[t][i], sc[i]);
      }
      PL_UNROLL for (int t = 0; t < NT; t++) {
        float32x4_t da = vdupq_n_f32(act(a, stride, t, b + j)->d);
        PL_UNROLL for (int i = 0; i < 4; i++) acc[t][i] = scaled(idot[t][i], half4(block, 4 * i), da, acc[t][i]);
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q6_K, neon)
