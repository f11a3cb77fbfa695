/* scatter.h: bytes of sixteen blocks side by side to the blocks. */
#ifndef PL_AVX2_SCATTER_H
#define PL_AVX2_SCATTER_H
#include <immintrin.h>

#include "kern/tile.h"

/* 16 bytes to each of p [16] from columns of c [16][16]. */
PL_INLINE void v_scatter(const uint8_t *c, uint8_t *const *p) {
  __m128i a[16], b[16];
  PL_UNROLL for (int i = 0; i < 16; i++) a[i] = _mm_loadu_si128((const void *)(c + 16 * i));
  /* Twice two of the four perfect shuffles of all 256 bytes that make the index's halves change places. */
  PL_UNROLL for (int turn = 0; turn < 2; turn++) {
    PL_UNROLL for (int i = 0; i < 8; i++) {
      b[2 * i] = _mm_unpacklo_epi8(a[i], a[i + 8]);
      b[2 * i + 1] = _mm_unpackhi_epi8(a[i], a[i + 8]);
    }
    PL_UNROLL for (int i = 0; i < 8; i++) {
      a[2 * i] = _mm_unpacklo_epi8(b[i], b[i + 8]);
      a[2 * i + 1] = _mm_unpackhi_epi8(b[i], b[i + 8]);
    }
  }
  PL_UNROLL for (int i = 0; i < 16; i++) _mm_storeu_si128((void *)p[i], a[i]);
}

#endif
