/* attn.h: what the attention kernels of all rooms share: everything around their tiles. */
#ifndef PL_ATTN_H
#define PL_ATTN_H
#include "kern/tile.h"

/* The statement with R = nq, a constant, where nq is 1 to LESS - 1, LESS being at most 8: the rows that whole tiles leave
 * over. */
#define PL_ROWS(nq, R, LESS, statement) \
  switch (nq) {                         \
    PL_ROWS_CASE(R, 1, LESS, statement) \
    PL_ROWS_CASE(R, 2, LESS, statement) \
    PL_ROWS_CASE(R, 3, LESS, statement) \
    PL_ROWS_CASE(R, 4, LESS, statement) \
    PL_ROWS_CASE(R, 5, LESS, statement) \
    PL_ROWS_CASE(R, 6, LESS, statement) \
    PL_ROWS_CASE(R, 7, LESS, statement) \
  }
#define PL_ROWS_CASE(R, n, LESS, statement) \
  case n: {                                 \
    enum { R = n };                         \
    if (n < LESS) statement;                \
    break;                                  \
  }

/* Bytes of a value of the float types. */
PL_INLINE int64_t width(const int type) { return type == PL_F32 ? 4 : 2; }

/* Bytes of n codes of the quantized types. */
PL_INLINE int64_t code_bytes(const int type, int64_t n) { return type == PL_Q8_0 ? n : n / 2; }

/* Where keys from j on leave their page, or end. */
PL_INLINE int32_t page_end(int32_t j, int32_t j1) {
  int32_t next = (j / PL_PAGE + 1) * PL_PAGE;
  return next < j1 ? next : j1;
}

/* Lines of 64 bytes to ask for with each 32 values of 16 keys: codes, scales and offset, rounded up. */
PL_INLINE int fetched(const int type) { return type == PL_Q8_0 ? 10 : 6; }

/* The av kernel made of a room's rows(p, v, j0, j1, hdp, o, ahead, type, R), which takes R rows of scores: MOST at a time,
 * then LESS, then what is left. */
#define PL_AV(type, level, MOST, LESS)                                                                  \
  void pl_av_##type##_##level(const float *p, int32_t nq, const void *const *v, int32_t j0, int32_t j1, \
                              int32_t hdp, float *o, const void *const *ahead) {                        \
    for (; nq >= MOST; nq -= MOST, p += MOST * PL_CHUNK, o += MOST * hdp, ahead = v)                    \
      rows(p, v, j0, j1, hdp, o, ahead, PL_##type, MOST);                                               \
    for (; nq >= LESS; nq -= LESS, p += LESS * PL_CHUNK, o += LESS * hdp, ahead = v)                    \
      rows(p, v, j0, j1, hdp, o, ahead, PL_##type, LESS);                                               \
    PL_ROWS(nq, R, LESS, rows(p, v, j0, j1, hdp, o, ahead, PL_##type, R))                               \
  }

/* ---- quantized keys ---- */

/* The offsets of some pages, made one block of keys in the layout of Q8_0. */
typedef struct pl_offsets {
  int8_t codes[PL_HEAD_MAX * PL_PAGE]; /* and then, right after hd * PL_PAGE of them, the scales */
  uint16_t room[PL_HEAD_MAX / 32 * PL_PAGE];
} pl_offsets;

static inline void gather_offsets(const void *const *k, int32_t nb, int32_t hd, const int type, pl_offsets *y) {
  uint16_t *d = (uint16_t *)(void *)(y->codes + hd * PL_PAGE);
  for (int32_t p = 0; p < nb; p++) {
    const uint8_t *offset = (const uint8_t *)k[p] + code_bytes(type, hd * PL_PAGE) + hd / 32 * PL_PAGE * 2;
    for (int32_t g = 0; g < hd / 4; g++) memcpy(y->codes + (g * PL_PAGE + p) * 4, offset + 4 * g, 4);
    for (int32_t b = 0; b < hd / 32; b++) memcpy(d + b * PL_PAGE + p, offset + hd + 2 * b, 2);
  }
}

/* A room's blocks() made of its tile(q, k, hd, scale, from, s, stride, ahead, type, R), which takes R queries, at most
 * MOST, against one block. */
#define PL_QK_BLOCKS(MOST)                                                                                       \
  PL_INLINE void blocks(const pl_q16 *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, float scale,  \
                        const float *from, float *s, int64_t stride, const void *const *ahead, const int type) { \
    for (int32_t b = 0; b < nb; b++) {                                                                           \
      const uint8_t *next = ahead[b];                                                                            \
      const pl_q16 *x = q;                                                                                       \
      const float *start = from + b;                                                                             \
      float *y = s + b * PL_PAGE;                                                                                \
      int32_t n = nq;                                                                                            \
      for (; n >= MOST; n -= MOST, x += MOST * (hd / 32), y += MOST * stride, next = k[b]) {                     \
        tile(x, k[b], hd, scale, start, y, stride, next, type, MOST);                                            \
        start += MOST * PL_PAGE;                                                                                 \
      }                                                                                                          \
      PL_ROWS(n, R, MOST, tile(x, k[b], hd, scale, start, y, stride, next, type, R))                             \
    }                                                                                                            \
  }

/* The qk kernels made of a room's blocks(q, nq, k, nb, hd, scale, from, s, stride, ahead, type): s [nq][stride], of which
 * columns [0, 16 nb) are written, the scores of nb blocks (scale 0: as the sums are), each starting from that of its block
 * in from [nq][16]. 64 queries meet the pages' offsets first: what the scores of their keys start from. */
#define PL_QK_QUANT(type, level)                                                                       \
  void pl_qk_##type##_##level(const void *q, int32_t nq, const void *const *k, int32_t nb, int32_t hd, \
                              float scale, float *s, const void *const *ahead) {                       \
    enum { QUERIES = 64 };                                                                             \
    static const float zero[QUERIES * PL_PAGE];                                                        \
    pl_offsets offsets;                                                                                \
    const void *block = &offsets;                                                                      \
    float from[QUERIES * PL_PAGE];                                                                     \
    gather_offsets(k, nb, hd, PL_##type, &offsets);                                                    \
    for (int32_t r = 0; r < nq; r += QUERIES) {                                                        \
      const pl_q16 *x = (const pl_q16 *)q + r * (hd / 32);                                             \
      const int32_t n = nq - r < QUERIES ? nq - r : QUERIES;                                           \
      blocks(x, n, &block, 1, hd, 0, zero, from, PL_PAGE, &block, PL_Q8_0);                            \
      blocks(x, n, k, nb, hd, scale, from, s + r * PL_CHUNK, PL_CHUNK, ahead, PL_##type);              \
    }                                                                                                  \
  }

#endif
