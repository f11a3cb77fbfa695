#include "kern/neon/mm.h"
#include "kern/ref/scale_k.h"

/* Per 256 values of 16 rows: 16 scales, 16 scales of the minimums, then per 32 values: 16 bytes of scale codes, 16
 * of minimum codes, 16 nibble lines. The 6-bit codes become bytes: 2368 bytes for 2304. */
enum { SUB = 288, BLOCK = 64 + 8 * SUB };

int64_t pl_panel_bytes_Q4_K_neon(int64_t k) { return k / 256 * BLOCK; }

void pl_pack_Q4_K_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q4_K_neon(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q4_K *w = (const pl_block_q4_K *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      copy2(p + 32 + 2 * r, &w->dmin);
      for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 64 + j * SUB;
        scale_min(w->scales, j, &s[r], &s[16 + r]);
        const uint8_t *qs = w->qs + j / 2 * 32;
        for (int i = 0; i < 16; i++) {
          uint8_t q = (uint8_t)((qs[i] >> j % 2 * 4 & 15) | (qs[16 + i] >> j % 2 * 4 & 15) << 4);
          s[32 + 16 * i + r] = q ^ 0x88;
        }
      }
    }
}

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  float32x4_t acc[4][4];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 64;
    for (int j = 0; j < 8; j++, w += SUB) {
      int32x4_t idot[4][4], sc[4], m[4];
      float32x4_t dw[4], mw[4];
      dot_s4(w + 32, a, stride, b + j, idot, NT);
      bytes16(w, sc);
      bytes16(w + 16, m);
      PL_UNROLL for (int i = 0; i < 4; i++) {
        dw[i] = vmulq_f32(half4(block, 4 * i), vcvtq_f32_s32(sc[i]));
        mw[i] = vmulq_f32(half4(block + 32, 4 * i), vcvtq_f32_s32(m[i]));
      }
      PL_UNROLL for (int t = 0; t < NT; t++) {
        const pl_q8 *x = act(a, stride, t, b + j);
        float32x4_t da = vdupq_n_f32(x->d), sa = vdupq_n_f32(x->s);
        int32x4_t rest = lacking(x, 8);
        PL_UNROLL for (int i = 0; i < 4; i++) {
          acc[t][i] = scaled(vaddq_s32(idot[t][i], rest), dw[i], da, acc[t][i]);
          acc[t][i] = vfmsq_f32(acc[t][i], mw[i], sa);
        }
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q4_K, neon)
