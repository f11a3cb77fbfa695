/* k.h: encoders of the K types: see super.h for the method. A room's enc_k.c includes this after its lanes.h, with
 * LEVEL. */
#include "quant/blocks.h"
#include "quant/enc/super.h"

/* Four bits of each code: those of two sub-blocks of 32 in 32 bytes. */
static void put_nibbles(const uint8_t *q /* [256] */, uint8_t *to /* [128] */) {
  for (int j = 0; j < 4; j++)
    for (int i = 0; i < 32; i++) to[j * 32 + i] = (uint8_t)((q[j * 64 + i] & 15) | (q[j * 64 + 32 + i] & 15) << 4);
}

/* Bit `bit` of the codes of sub-block j in bit j of byte i. */
static void put_bits(const uint8_t *q /* [256] */, int bit, uint8_t *to /* [32] */) {
  memset(to, 0, 32);
  for (int j = 0; j < 8; j++)
    for (int i = 0; i < 32; i++) to[i] = (uint8_t)(to[i] | (q[j * 32 + i] >> bit & 1) << j);
}

/* Q4_K and Q5_K: eight scales and eight minimums of six bits. */
static void put_scales(const int8_t *sc, const int8_t *mm, uint8_t *to /* [12] */) {
  for (int j = 0; j < 4; j++) {
    to[j] = (uint8_t)(sc[j] | (sc[j + 4] >> 4) << 6);
    to[j + 4] = (uint8_t)(mm[j] | (mm[j + 4] >> 4) << 6);
    to[j + 8] = (uint8_t)((sc[j + 4] & 15) | (mm[j + 4] & 15) << 4);
  }
}

static void put_q2_k(void *block, const uint8_t *q, const int8_t *sc, const int8_t *mm, uint16_t d, uint16_t m) {
  pl_block_q2_K *b = block;
  put_pairs(q, b->qs);
  for (int j = 0; j < 16; j++) b->scales[j] = (uint8_t)(sc[j] | mm[j] << 4);
  memcpy(&b->d, &d, 2);
  memcpy(&b->dmin, &m, 2);
}

static void put_q3_k(void *block, const uint8_t *q, const int8_t *sc, const int8_t *mm, uint16_t d, uint16_t m) {
  pl_block_q3_K *b = block;
  put_pairs(q, b->qs);
  put_bits(q, 2, b->hmask);
  memset(b->scales, 0, sizeof b->scales);
  for (int j = 0; j < 16; j++) {
    int s = sc[j] + 32;
    b->scales[j % 8] = (uint8_t)(b->scales[j % 8] | (s & 15) << j / 8 * 4);
    b->scales[8 + j % 4] = (uint8_t)(b->scales[8 + j % 4] | s >> 4 << j / 4 * 2);
  }
  memcpy(&b->d, &d, 2);
}

static void put_q4_k(void *block, const uint8_t *q, const int8_t *sc, const int8_t *mm, uint16_t d, uint16_t m) {
  pl_block_q4_K *b = block;
  put_nibbles(q, b->qs);
  put_scales(sc, mm, b->scales);
  memcpy(&b->d, &d, 2);
  memcpy(&b->dmin, &m, 2);
}

static void put_q5_k(void *block, const uint8_t *q, const int8_t *sc, const int8_t *mm, uint16_t d, uint16_t m) {
  pl_block_q5_K *b = block;
  put_nibbles(q, b->qs);
  put_bits(q, 4, b->qh);
  put_scales(sc, mm, b->scales);
  memcpy(&b->d, &d, 2);
  memcpy(&b->dmin, &m, 2);
}

static void put_q6_k(void *block, const uint8_t *q, const int8_t *sc, const int8_t *mm, uint16_t d, uint16_t m) {
  pl_block_q6_K *b = block;
  for (int half = 0; half < 2; half++)
    for (int i = 0; i < 32; i++) {
      const uint8_t *c = q + half * 128 + i;
      for (int g = 0; g < 2; g++)
        b->ql[half * 64 + g * 32 + i] = (uint8_t)((c[g * 32] & 15) | (c[64 + g * 32] & 15) << 4);
      b->qh[half * 32 + i] = (uint8_t)(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
    }
  memcpy(b->scales, sc, 16);
  memcpy(&b->d, &d, 2);
}

PL_ENC(Q2_K) {
  static const float start[] = {15.0f, 13.5f, 17.0f};
  static const enc_grid grid = {2.5f, 0.2f, 8, 3};
  static const enc_multiples by = {0, 15, start, 3, 2};
  enc_super2(x, w, cols, n, dst, sizeof(pl_block_q2_K), 16, 3, &grid, 2, &by, put_q2_k);
}

PL_ENC(Q3_K) {
  static const float edge[] = {-4.0f, -3.6f, -4.4f, 3.0f, 3.4f, -3.3f, 3.7f, 2.7f};
  static const float start[] = {-32.0f, -29.0f};
  static const enc_book book = {-4, 3, NULL, NULL};
  static const enc_multiples by = {-32, 31, start, 2, 1};
  enc_super1(x, w, cols, n, dst, sizeof(pl_block_q3_K), 16, &book, 4, edge, 8, 1, &by, put_q3_k);
}

PL_ENC(Q4_K) {
  static const float start[] = {63.0f};
  static const enc_grid grid = {14.0f, 0.3f, 8, 3};
  static const enc_multiples by = {0, 63, start, 1, 1};
  enc_super2(x, w, cols, n, dst, sizeof(pl_block_q4_K), 32, 15, &grid, 2, &by, put_q4_k);
}

PL_ENC(Q5_K) {
  static const float start[] = {63.0f};
  static const enc_grid grid = {30.0f, 0.4f, 8, 3};
  static const enc_multiples by = {0, 63, start, 1, 1};
  enc_super2(x, w, cols, n, dst, sizeof(pl_block_q5_K), 32, 31, &grid, 2, &by, put_q5_k);
}

PL_ENC(Q6_K) {
  static const float edge[] = {-32.0f, -31.2f, -32.6f, 31.0f, 31.7f, -30.4f, 30.3f};
  static const float start[] = {-128.0f};
  static const enc_book book = {-32, 31, NULL, NULL};
  static const enc_multiples by = {-128, 127, start, 1, 1};
  enc_super1(x, w, cols, n, dst, sizeof(pl_block_q6_K), 16, &book, 32, edge, 7, 1, &by, put_q6_k);
}
