/* codes.h: the codes of 32 values of a block, unsigned, one per byte, in the order of the values. */
#ifndef PL_REF_CODES_H
#define PL_REF_CODES_H
#include "quant/blocks.h"

/* What a code of a type with a table stands for: IQ4_NL and IQ4_XS; MXFP4 and NVFP4 (twice an E2M1 value). */
static const int8_t values_iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const int8_t values_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
/* The same plus 128, and plus 16: for instructions that multiply unsigned bytes with signed ones. */
static const uint8_t values_iq4_128[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                           129, 141, 153, 166, 181, 197, 217, 241};
static const uint8_t values_e2m1_16[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

/* Q4_0, Q4_1, IQ4_NL, IQ4_XS, MXFP4: low nibbles first, then high ones. */
static inline void codes_nibbles(const uint8_t *qs /* [16] */, uint8_t *q) {
  for (int i = 0; i < 16; i++) {
    q[i] = qs[i] & 15;
    q[i + 16] = qs[i] >> 4;
  }
}

/* Q5_0, Q5_1: four bits as above, the fifth of value i in bit i of qh. */
static inline void codes_q5(const uint8_t *qs /* [16] */, const uint8_t *qh /* [4] */, uint8_t *q) {
  codes_nibbles(qs, q);
  for (int i = 0; i < 32; i++) q[i] = (uint8_t)(q[i] | (qh[i / 8] >> i % 8 & 1) << 4);
}

/* Sub-blocks j = 0..7 of 32 values of the types with blocks of 256: */

/* Q2_K: each 32 bytes hold four sub-blocks, two bits each. */
static inline void codes_q2_k(const uint8_t *qs /* [64] */, int j, uint8_t *q) {
  for (int i = 0; i < 32; i++) q[i] = qs[j / 4 * 32 + i] >> j % 4 * 2 & 3;
}

/* Q3_K: two bits as in Q2_K, the third in bit j of hmask[i]. */
static inline void codes_q3_k(const pl_block_q3_K *b, int j, uint8_t *q) {
  codes_q2_k(b->qs, j, q);
  for (int i = 0; i < 32; i++) q[i] = (uint8_t)(q[i] | (b->hmask[i] >> j & 1) << 2);
}

/* Q4_K: even sub-blocks are the low nibbles of 32 bytes, odd ones the high. */
static inline void codes_q4_k(const uint8_t *qs /* [128] */, int j, uint8_t *q) {
  for (int i = 0; i < 32; i++) q[i] = qs[j / 2 * 32 + i] >> j % 2 * 4 & 15;
}

/* Q5_K: four bits as in Q4_K, the fifth in bit j of qh[i]. */
static inline void codes_q5_k(const pl_block_q5_K *b, int j, uint8_t *q) {
  codes_q4_k(b->qs, j, q);
  for (int i = 0; i < 32; i++) q[i] = (uint8_t)(q[i] | (b->qh[i] >> j & 1) << 4);
}

/* Q6_K: each half of the block (128 values) has 64 bytes of low nibbles, sub-blocks 0 1 low and 2 3 high, and 32
 * bytes with two upper bits for each of its four sub-blocks. */
static inline void codes_q6_k(const pl_block_q6_K *b, int j, uint8_t *q) {
  int half = j / 4, g = j % 4;
  const uint8_t *ql = b->ql + half * 64 + g % 2 * 32, *qh = b->qh + half * 32;
  for (int i = 0; i < 32; i++) q[i] = (uint8_t)((ql[i] >> g / 2 * 4 & 15) | (qh[i] >> g * 2 & 3) << 4);
}

#endif
