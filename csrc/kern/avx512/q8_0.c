#include "kern/avx512/pair.h"

/* Codes become unsigned by flipping their sign bits, a zero point of 128. */
PL_INLINE void dot_s8(const uint8_t *codes, const uint8_t *a, int64_t stride, int64_t b, __m512i idot[],
                      const int NT) {
  PL_UNROLL for (int q = 0; q < 8; q++) {
    __m512i w = _mm512_xor_si512(line(codes + 64 * q), _mm512_set1_epi8((char)0x80));
    PL_UNROLL for (int t = 0; t < NT; t++) {
      idot[t] = _mm512_dpbusd_epi32(idot[t], w, quad(act(a, stride, t, b), q));
      PL_PIN(idot[t]);
    }
  }
}

PL_TILE_ZERO(16 * sizeof(pl_block_q8_0), half16, 32, 128, dot_s8)
PL_MM8(Q8_0)

PL_INLINE void put_s8(pl_pair *u, int j, int p, const uint8_t *codes) {
  PL_UNROLL for (int q = 0; q < 8; q++)
      put_quad(u, j, q, p, _mm512_xor_si512(line(codes + 64 * q), _mm512_set1_epi8((char)0x80)));
}
PL_PAIR_ZERO(Q8_0, 16 * sizeof(pl_block_q8_0), half16, 32, 128, put_s8)
