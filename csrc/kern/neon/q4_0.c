#include "kern/neon/mm.h"

/* Per 32 values of 16 rows: 16 scales, 16 nibble lines. As large as the source. */
enum { BLOCK = 16 * sizeof(pl_block_q4_0) };

int64_t pl_panel_bytes_Q4_0_neon(int64_t k) { return round64(k / 32 * BLOCK); }

void pl_pack_Q4_0_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  if (nr < PL_PANEL) memset(panel, 0, (size_t)pl_panel_bytes_Q4_0_neon(k));
  uint8_t *p = panel;
  for (int64_t b = 0; b < k / 32; b++, p += BLOCK)
    for (int r = 0; r < nr; r++) {
      const pl_block_q4_0 *w = (const pl_block_q4_0 *)(const void *)((const uint8_t *)src + r * row_bytes) + b;
      copy2(p + 2 * r, &w->d);
      for (int i = 0; i < 16; i++) p[32 + 16 * i + r] = w->qs[i] ^ 0x88;
    }
}

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  float32x4_t acc[4][4];
  load_tile(y, at, acc, NT);
  for (int64_t b = 0; b < k / 32; b++, w += BLOCK) {
    int32x4_t idot[4][4];
    dot_s4(w + 32, a, stride, b, idot, NT);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      const pl_q8 *x = act(a, stride, t, b);
      float32x4_t da = vdupq_n_f32(x->d);
      PL_UNROLL for (int i = 0; i < 4; i++) acc[t][i] = scaled(idot[t][i], half4(w, 4 * i), da, acc[t][i]);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(Q4_0, neon)
