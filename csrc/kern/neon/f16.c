#include "kern/neon/mm.h"

/* Panel: [k][16] values. */
int64_t pl_panel_bytes_F16_neon(int64_t k) { return round64(k * 16 * (int64_t)sizeof(uint16_t)); }

void pl_pack_F16_neon(const void *src, int64_t row_bytes, int32_t nr, int64_t k, void *panel) {
  uint16_t *p = panel;
  for (int r = 0; r < PL_PANEL; r++) {
    const uint16_t *w = (const void *)((const uint8_t *)src + r * row_bytes);
    for (int64_t i = 0; i < k; i++) p[i * PL_PANEL + r] = r < nr ? w[i] : 0;
  }
}

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  float32x4_t acc[4][4];
  load_tile(y, at, acc, NT);
  for (int64_t i = 0; i < k; i++, w += 16 * sizeof(uint16_t)) {
    float32x4_t v[4];
    PL_UNROLL for (int h = 0; h < 4; h++) v[h] = half4(w, 4 * h);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      float x = ((const float *)(const void *)(a + t * stride))[i];
      PL_UNROLL for (int h = 0; h < 4; h++) acc[t][h] = vfmaq_n_f32(acc[t][h], v[h], x);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(F16, neon)
