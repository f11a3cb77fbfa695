#include "kern/avx512/pair.h"

enum { TOKENS = 6 };

/* Half hi (quads 4 hi .. 4 hi + 3) of block b: idot [NT][2] += codes . activations */
PL_INLINE void dot_half(const pl_pair *u, int b, int hi, const uint8_t *a, int64_t stride, __m512i idot[][2],
                        const int NT) {
  PL_UNROLL for (int q = 4 * hi; q < 4 * hi + 4; q++) {
    const __m512i w0 = line(u->code[b][q][0]), w1 = line(u->code[b][q][1]);
    PL_UNROLL for (int t = 0; t < NT; t++) {
      __m512i x = quad(act(a, stride, t, b), q);
      idot[t][0] = _mm512_dpbusd_epi32(idot[t][0], w0, x);
      idot[t][1] = _mm512_dpbusd_epi32(idot[t][1], w1, x);
      PL_PIN(idot[t][0]);
      PL_PIN(idot[t][1]);
    }
  }
}

PL_INLINE void load_pair(const float *y, const int32_t *at, __m512 acc[][2], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int p = 0; p < 2; p++) acc[t][p] =
      _mm512_loadu_ps(y + (at[t] * 2 + p) * PL_PANEL);
}

PL_INLINE void store_pair(float *y, const int32_t *at, __m512 acc[][2], const int NT) {
  PL_UNROLL for (int t = 0; t < NT; t++) PL_UNROLL for (int p = 0; p < 2; p++)
      _mm512_storeu_ps(y + (at[t] * 2 + p) * PL_PANEL, acc[t][p]);
}

/* ZERO: what the codes are above their values; 0: minimums. */
PL_INLINE void tile(const pl_pair *u, int n, const uint8_t *a, int64_t stride, const int32_t *at, float *y,
                    const int ZERO, const int NT) {
  __m512 acc[TOKENS][2];
  load_pair(y, at, acc, NT);
  for (int b = 0; b < n; b++) {
    __m512i idot[TOKENS][2];
    PL_UNROLL for (int t = 0; t < NT; t++) idot[t][0] = idot[t][1] =
        ZERO ? zero_point(act(a, stride, t, b), ZERO) : _mm512_setzero_si512();
    dot_half(u, b, 0, a, stride, idot, NT);
    dot_half(u, b, 1, a, stride, idot, NT);
    PL_UNROLL for (int p = 0; p < 2; p++) {
      const __m512 d = _mm512_load_ps(u->d[b][p]);
      PL_UNROLL for (int t = 0; t < NT; t++) {
        const pl_q8 *x = act(a, stride, t, b);
        acc[t][p] = scaled(idot[t][p], d, _mm512_set1_ps(x->d), acc[t][p]);
        if (!ZERO) acc[t][p] = _mm512_fmadd_ps(_mm512_load_ps(u->m[b][p]), _mm512_set1_ps(x->s), acc[t][p]);
      }
    }
  }
  store_pair(y, at, acc, NT);
}

/* The halves of a block have factors of their own: idot = f0 * (first half) + f1 * (last half), each starting from -32 times
 * its sum of activations. */
PL_INLINE void tile_half32(const pl_pair *u, int n, const uint8_t *a, int64_t stride, const int32_t *at, float *y,
                           const int NT) {
  __m512 acc[4][2];
  load_pair(y, at, acc, NT);
  for (int b = 0; b < n; b++) {
    __m512i idot[4][2], sum[4][2];
    PL_UNROLL for (int hi = 0; hi < 2; hi++) {
      PL_UNROLL for (int t = 0; t < NT; t++) sum[t][0] = sum[t][1] =
          _mm512_set1_epi32(-32 * act(a, stride, t, b)->h[hi]);
      dot_half(u, b, hi, a, stride, sum, NT);
      PL_UNROLL for (int p = 0; p < 2; p++) {
        const __m512i f = line(u->half[b][p][hi]);
        PL_UNROLL for (int t = 0; t < NT; t++) {
          __m512i s = _mm512_mullo_epi32(sum[t][p], f);
          idot[t][p] = hi ? _mm512_add_epi32(idot[t][p], s) : s;
        }
      }
    }
    PL_UNROLL for (int p = 0; p < 2; p++) {
      const __m512 d = _mm512_load_ps(u->d[b][p]);
      PL_UNROLL for (int t = 0; t < NT; t++) acc[t][p] =
          scaled(idot[t][p], d, _mm512_set1_ps(act(a, stride, t, b)->d), acc[t][p]);
    }
  }
  store_pair(y, at, acc, NT);
}

/* Minimums of both halves, m times (f0 * h[0] + f1 * h[1]) * d_a: half[0] holds the f, f1 in its upper 16 bits. */
PL_INLINE void tile_min16(const pl_pair *u, int n, const uint8_t *a, int64_t stride, const int32_t *at, float *y,
                          const int NT) {
  __m512 acc[TOKENS][2];
  load_pair(y, at, acc, NT);
  for (int b = 0; b < n; b++) {
    __m512i idot[TOKENS][2];
    PL_UNROLL for (int t = 0; t < NT; t++) idot[t][0] = idot[t][1] = _mm512_setzero_si512();
    dot_half(u, b, 0, a, stride, idot, NT);
    dot_half(u, b, 1, a, stride, idot, NT);
    PL_UNROLL for (int p = 0; p < 2; p++) {
      const __m512 d = _mm512_load_ps(u->d[b][p]), m = _mm512_load_ps(u->m[b][p]);
      const __m512i f = line(u->half[b][p][0]);
      PL_UNROLL for (int t = 0; t < NT; t++) {
        const pl_q8 *x = act(a, stride, t, b);
        __m512 da = _mm512_set1_ps(x->d);
        acc[t][p] = scaled(idot[t][p], d, da, acc[t][p]);
        acc[t][p] = scaled(_mm512_madd_epi16(f, bcast4(x->h)), m, da, acc[t][p]);
      }
    }
  }
  store_pair(y, at, acc, NT);
}

/* Tile NT of a kernel, NT being a constant. */
#define PL_PAIR_TILE(name, BODY, NT)                                                                        \
  static __attribute__((noinline)) void name##NT(const pl_pair *u, int n, const uint8_t *a, int64_t stride, \
                                                 const int32_t *at, float *y) {                             \
    BODY(NT);                                                                                               \
  }
/* The kernel: tiles of MAX, then one of what is left. */
#define PL_PAIR_RUN(name, MAX, MORE)                                                                            \
  void pl_pair_##name(const pl_pair *u, int n, const uint8_t *a, int64_t stride, int32_t nt, const int32_t *at, \
                      float *y) {                                                                               \
    for (; nt >= MAX; nt -= MAX, a += MAX * stride, at += MAX) name##MAX(u, n, a, stride, at, y);               \
    MORE if (nt == 3) name##3(u, n, a, stride, at, y);                                                          \
    if (nt == 2) name##2(u, n, a, stride, at, y);                                                               \
    if (nt == 1) name##1(u, n, a, stride, at, y);                                                               \
  }
#define PL_PAIR4(name, BODY)  \
  PL_PAIR_TILE(name, BODY, 1) \
  PL_PAIR_TILE(name, BODY, 2) \
  PL_PAIR_TILE(name, BODY, 3) \
  PL_PAIR_TILE(name, BODY, 4) \
  PL_PAIR_RUN(name, 4, )
#define PL_PAIR6(name, BODY)  \
  PL_PAIR_TILE(name, BODY, 1) \
  PL_PAIR_TILE(name, BODY, 2) \
  PL_PAIR_TILE(name, BODY, 3) \
  PL_PAIR_TILE(name, BODY, 4) \
  PL_PAIR_TILE(name, BODY, 5) \
  PL_PAIR_TILE(name, BODY, 6) \
  PL_PAIR_RUN(name, 6, if (nt == 5) name##5(u, n, a, stride, at, y); if (nt == 4) name##4(u, n, a, stride, at, y);)

#define ZERO8(NT) tile(u, n, a, stride, at, y, 8, NT)
PL_PAIR6(zero8, ZERO8)
#define ZERO16(NT) tile(u, n, a, stride, at, y, 16, NT)
PL_PAIR6(zero16, ZERO16)
#define ZERO127(NT) tile(u, n, a, stride, at, y, 127, NT)
PL_PAIR6(zero127, ZERO127)
#define ZERO128(NT) tile(u, n, a, stride, at, y, 128, NT)
PL_PAIR6(zero128, ZERO128)
#define MIN(NT) tile(u, n, a, stride, at, y, 0, NT)
PL_PAIR6(min, MIN)
#define HALF32(NT) tile_half32(u, n, a, stride, at, y, NT)
PL_PAIR4(half32, HALF32)
#define MIN16(NT) tile_min16(u, n, a, stride, at, y, NT)
PL_PAIR6(min16, MIN16)
