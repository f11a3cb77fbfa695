#include "kern/neon/mm.h"
#include "kern/ref/scale_k.h"

/* Per 256 values of 16 rows: 16 scales, then per 32 values: 16 scale codes, 16 nibble lines. The 6-bit codes become
 * bytes: 2208 bytes for 2176. */
enum { SUB = 16 + 256, BLOCK = 32 + 8 * SUB };

int64_t pl_panel_bytes_IQ4_XS_neon(int64_t k) { return round64(k / 256 * BLOCK); }

void pl_pack_IQ4_XS_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  memset(panel, 0, (size_t)pl_panel_bytes_IQ4_XS_neon(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 256; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_iq4_xs *w = (const pl_block_iq4_xs *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      for (int j = 0; j < 8; j++) {
        uint8_t *s = p + 32 + j * SUB;
        s[r] = (uint8_t)scale_iq4_xs(w, j);
        for (int i = 0; i < 16; i++) s[16 + 16 * i + r] = w->qs[16 * j + i];
      }
    }
}

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  float32x4_t acc[4][4];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b += 8) {
    const uint8_t *block = w;
    w += 32;
    for (int j = 0; j < 8; j++, w += SUB) {
      int32x4_t idot[4][4], sc[4];
      float32x4_t dw[4];
      dot_iq4(w + 16, a, stride, b + j, idot, NT);
      sbytes16(w, sc);
      PL_UNROLL for (int i = 0; i < 4; i++) dw[i] = vmulq_f32(half4(block, 4 * i), vcvtq_f32_s32(sc[i]));
      PL_UNROLL for (int t = 0; t < NT; t++) {
        float32x4_t da = vdupq_n_f32(act(a, stride, t, b + j)->d);
        PL_UNROLL for (int i = 0; i < 4; i++) acc[t][i] = scaled(idot[t][i], dw[i], da, acc[t][i]);
      }
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(IQ4_XS, neon)
