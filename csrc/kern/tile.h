/* tile.h: what the matrix kernels of all rooms share. */
#ifndef PL_TILE_H
#define PL_TILE_H
#include <string.h>

#include "kern/kern.h"

#define PL_INLINE static inline __attribute__((always_inline))
/* Loops over tiles must be unrolled whole, or their arrays lie in memory instead of registers. */
#if defined(__clang__)
#define PL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PL_UNROLL _Pragma("GCC unroll 16")
#endif

/* A room's file defines tile(w, k, a, stride, y, at, NT): NT activation rows times one panel. PL_MM makes the kernel
 * of it, with NT a constant: tiles of 4, then the rest. */
#define PL_TILE(NT)                                                                                             \
  static __attribute__((noinline)) void tile##NT(const uint8_t *w, int64_t k, const uint8_t *a, int64_t stride, \
                                                 float *y, const int32_t *at) {                                 \
    tile(w, k, a, stride, y, at, NT);                                                                           \
  }
#define PL_MM(type, level)                                                                            \
  PL_TILE(1)                                                                                          \
  PL_TILE(2)                                                                                          \
  PL_TILE(3)                                                                                          \
  PL_TILE(4)                                                                                          \
  void pl_mm_##type##_##level(const void *w, int64_t row_bytes, int32_t nr, int64_t k, const void *a, \
                              int64_t a_stride, int32_t nt, const int32_t *at, float *y) {            \
    const uint8_t *x = a;                                                                             \
    for (; nt >= 4; nt -= 4, x += 4 * a_stride, at += 4) tile4(w, k, x, a_stride, y, at);             \
    if (nt == 3) tile3(w, k, x, a_stride, y, at);                                                     \
    if (nt == 2) tile2(w, k, x, a_stride, y, at);                                                     \
    if (nt == 1) tile1(w, k, x, a_stride, y, at);                                                     \
  }

/* Ask for the bytes that lie ahead of a block of this size (a constant): the weights are one long stream, and the
 * hardware alone does not fetch it early enough when much is computed between two loads. */
#define PL_AHEAD 8192
PL_INLINE void fetch_ahead(const uint8_t *w, int bytes) {
  PL_UNROLL for (int i = 0; i < bytes; i += 64)
      __builtin_prefetch((const void *)((uintptr_t)w + PL_AHEAD + (unsigned)i));
}

/* Ask for line i of memory that a later kernel reads. */
PL_INLINE void fetch(const void *p, int64_t i) { __builtin_prefetch((const uint8_t *)p + 64 * i, 0, 2); }

/* Block b of activation row t. */
PL_INLINE const pl_q8 *act(const uint8_t *a, int64_t stride, int t, int64_t b) {
  return (const pl_q8 *)(const void *)(a + t * stride) + b;
}

/* For pack kernels: sizes, and copies from anywhere to anywhere. */
static inline int64_t round64(int64_t n) { return (n + 63) / 64 * 64; }
static inline void copy2(uint8_t *to, const void *from) { memcpy(to, from, 2); }
static inline void copy4(uint8_t *to, const void *from) { memcpy(to, from, 4); }

#endif
