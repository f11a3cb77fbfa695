/* pair.h: many tokens times two panels (mm2).
 *
 * vpdpbusd runs twice per cycle, and so do loads: with one panel, loading the activations' bytes would take as long as
 * multiplying them. Two panels at once halve that. Their codes are unpacked to bytes once for all tokens, 8 blocks of 32
 * at a time, which stay in the first level cache; after that all types look alike, and share the tiles in pair.c. */
#ifndef PL_AVX512_PAIR_H
#define PL_AVX512_PAIR_H
#include "kern/avx512/mm.h"

/* Up to 8 blocks of two panels. */
typedef struct pl_pair {
  _Alignas(64) uint8_t code[8][8][2][64]; /* [block][quad][panel][row, 4 bytes each] */
  float d[8][2][16];                      /* [block][panel][row] scales, */
  float m[8][2][16];                      /* what times s_a, or (Q2_K) times the sums h and d_a, is added, */
  int32_t half[8][2][2][16];              /* [block][panel][half][row] and factors of the halves */
} pl_pair;

/* y [rows][2][16], y[at[t]] += block 0 .. n-1 of u times blocks a of nt tokens, stride bytes apart; codes are above their
 * values by 8, 16, 127 or 128, or (sc0 * (first half) + sc1 * (last half)) 32; or there are minimums. */
typedef void pl_pair_fn(const pl_pair *u, int n, const uint8_t *a, int64_t stride, int32_t nt, const int32_t *at,
                        float *y);
pl_pair_fn pl_pair_zero8, pl_pair_zero16, pl_pair_zero127, pl_pair_zero128, pl_pair_min, pl_pair_half32,
    pl_pair_min16;

/* The kernel of a type: PART bytes of a panel hold 8 blocks, of which UNPACK(w, n, p, u) puts n into panel p of u. The
 * part after the next one is asked for meanwhile. */
#define PL_MM2(type, PART, UNPACK, RUN)                                                                \
  void pl_mm2_##type##_avx512(const void *w, int64_t next, int64_t k, const void *a, int64_t a_stride, \
                              int32_t nt, const int32_t *at, float *y) {                               \
    pl_pair u;                                                                                         \
    for (int64_t b = 0; b < k / 32; b += 8) {                                                          \
      int n = k / 32 - b < 8 ? (int)(k / 32 - b) : 8;                                                  \
      for (int p = 0; p < 2; p++) {                                                                    \
        const uint8_t *x = (const uint8_t *)w + p * next + b / 8 * (PART);                             \
        UNPACK(x, n, p, &u);                                                                           \
        const uint8_t *ahead = b + 8 < k / 32 ? x + (PART) : (const uint8_t *)w + (2 + p) * next;      \
        for (int i = 0; i < (int)(PART); i += 64)                                                      \
          __builtin_prefetch((const void *)((uintptr_t)ahead + (unsigned)i));                          \
      }                                                                                                \
      RUN(&u, n, (const uint8_t *)a + b * (int64_t)sizeof(pl_q8), a_stride, nt, at, y);                \
    }                                                                                                  \
  }

/* The 8 quads of a block, to panel p of u's block j. */
PL_INLINE void put_quad(pl_pair *u, int j, int q, int p, __m512i v) { _mm512_store_si512(u->code[j][q][p], v); }

/* Four nibble lines. */
PL_INLINE void put_u4(pl_pair *u, int j, int p, const uint8_t *codes) {
  PL_UNROLL for (int g = 0; g < 4; g++) {
    __m512i w = line(codes + 64 * g);
    put_quad(u, j, g, p, low4(w));
    put_quad(u, j, 4 + g, p, high4(w));
  }
}

/* A line of 5th bits, then nibble lines. */
PL_INLINE void put_u5(pl_pair *u, int j, int p, const uint8_t *codes) {
  const __m512i fifth = line(codes);
  PL_UNROLL for (int g = 0; g < 4; g++) {
    __m512i w = line(codes + 64 + 64 * g);
    put_quad(u, j, g, p, _mm512_or_si512(low4(w), bit5(fifth, g)));
    put_quad(u, j, 4 + g, p, _mm512_or_si512(high4(w), bit5(fifth, 4 + g)));
  }
}

/* Nibble lines, looked up. */
PL_INLINE void put_table(pl_pair *u, int j, int p, const uint8_t *codes, const uint8_t *value) {
  const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)value));
  PL_UNROLL for (int g = 0; g < 4; g++) {
    __m512i w = line(codes + 64 * g);
    put_quad(u, j, g, p, _mm512_shuffle_epi8(table, low4(w)));
    put_quad(u, j, 4 + g, p, _mm512_shuffle_epi8(table, high4(w)));
  }
}
PL_INLINE void put_iq4(pl_pair *u, int j, int p, const uint8_t *codes) {
  put_table(u, j, p, codes, values_iq4_128);
}
PL_INLINE void put_e2m1(pl_pair *u, int j, int p, const uint8_t *codes) {
  put_table(u, j, p, codes, values_e2m1_16);
}

/* Blocks of scales and codes with a fixed zero, as PL_TILE_ZERO has them. */
#define PL_PAIR_ZERO(type, BLOCK, SCALE, CODES, ZERO, PUT)            \
  PL_INLINE void unpack(const uint8_t *w, int n, int p, pl_pair *u) { \
    for (int j = 0; j < n; j++, w += BLOCK) {                         \
      _mm512_store_ps(u->d[j][p], SCALE(w));                          \
      PUT(u, j, p, w + CODES);                                        \
    }                                                                 \
  }                                                                   \
  PL_MM2(type, 8 * (BLOCK), unpack, pl_pair_zero##ZERO)

/* Blocks of scales, minimums and codes, as PL_TILE_MIN has them. */
#define PL_PAIR_MIN(type, BLOCK, CODES, PUT)                          \
  PL_INLINE void unpack(const uint8_t *w, int n, int p, pl_pair *u) { \
    for (int j = 0; j < n; j++, w += BLOCK) {                         \
      _mm512_store_ps(u->d[j][p], half16(w));                         \
      _mm512_store_ps(u->m[j][p], half16(w + 32));                    \
      PUT(u, j, p, w + CODES);                                        \
    }                                                                 \
  }                                                                   \
  PL_MM2(type, 8 * (BLOCK), unpack, pl_pair_min)

/* Blocks of 256 with byte scales and minimums, as PL_TILE_K has them. fma(-(dmin * m), s, acc) is what subtracting it
 * gives. */
#define PL_PAIR_K(type, SUB, PUT)                                           \
  PL_INLINE void unpack(const uint8_t *w, int n, int p, pl_pair *u) {       \
    __m512 d = half16(w), dmin = half16(w + 32);                            \
    w += 64;                                                                \
    for (int j = 0; j < n; j++, w += SUB) {                                 \
      _mm512_store_ps(u->d[j][p], _mm512_mul_ps(d, byte16(w)));             \
      __m512 m = _mm512_mul_ps(dmin, byte16(w + 16));                       \
      _mm512_store_ps(u->m[j][p], _mm512_xor_ps(m, _mm512_set1_ps(-0.0f))); \
      PUT(u, j, p, w + 32);                                                 \
    }                                                                       \
  }                                                                         \
  PL_MM2(type, 64 + 8 * (SUB), unpack, pl_pair_min)

#endif
