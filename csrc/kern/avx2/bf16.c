#include "kern/avx2/mm.h"
#include "kern/avx2/transpose.h"

/* Panel: [k][16] values. */
int64_t pl_panel_bytes_BF16_avx2(int64_t k) { return round64(k * 16 * (int64_t)sizeof(uint16_t)); }

PL_PACK_FLOAT(BF16, uint16_t, transpose_u16)

PL_INLINE void tile(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, float *y, const int32_t *at,
                    const int NT) {
  __m256 acc[4][2];
  load_tile(y, at, acc, NT);
  for (int64_t i = 0; i < k; i++, w += 16 * sizeof(uint16_t)) {
    if (i % 2 == 0) fetch_ahead(w, 64);
    __m256 w0 = bfloat8(w), w1 = bfloat8(w + 8 * sizeof(uint16_t));
    PL_UNROLL for (int t = 0; t < NT; t++) {
      __m256 x = _mm256_set1_ps(((const float *)(const void *)(a + t * stride))[i]);
      acc[t][0] = _mm256_fmadd_ps(w0, x, acc[t][0]);
      acc[t][1] = _mm256_fmadd_ps(w1, x, acc[t][1]);
    }
  }
  store_tile(y, at, acc, NT);
}
PL_MM(BF16, avx2)
