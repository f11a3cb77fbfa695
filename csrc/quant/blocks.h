/* Block layouts of the quantized tensor types, as GGUF stores them, and of quantized activations. */
#ifndef PL_BLOCKS_H
#define PL_BLOCKS_H
#include <stdint.h>

enum pl_type {
#define PL_T(name, id, block, bytes, act) PL_##name = id,
#include "quant/types.inc"
#undef PL_T
};
#define PL_N_TYPES 48 /* ids are below this */

/* Activations: one block of 32 values x[i] ~ d * q[i], |q| <= 127. A row of k values is k/32 blocks.
 * With two terms a row of a matmul input is two such rows, hi then lo: x ~ hi + lo, where lo quantizes what hi
 * left over. */
typedef struct pl_q8 {
  float d;      /* scale, max|x| / 127 */
  float s;      /* d * (q[0] + ... + q[31]), the product rounded once */
  int16_t h[2]; /* q[0] + ... + q[15] and q[16] + ... + q[31] */
  int32_t z;    /* -(q[0] + ... + q[31]): times the zero point, what sums over unsigned codes start from */
  int8_t q[32];
} pl_q8;
_Static_assert(sizeof(pl_q8) == 48, "pl_q8");

/* A query in 16 bits, for integer dot products with quantized keys: 32 of its values, x[i] ~ d * c[i], with one d for the
 * whole query and |c| <= 32639, so that c = 256 * hi + lo in signed bytes. */
typedef struct pl_q16 {
  float d;     /* max|x| / 32639 */
  int32_t sum; /* c[0] + ... + c[31] */
  int16_t c[32];
  int8_t hi[32], lo[32];
} pl_q16;
_Static_assert(sizeof(pl_q16) == 136, "pl_q16");

/* d is IEEE half precision throughout. */
typedef struct {
  uint16_t d;
  uint8_t qs[16];
} pl_block_q4_0; /* w = d * (q - 8) */
typedef struct {
  uint16_t d, m;
  uint8_t qs[16];
} pl_block_q4_1; /* w = d * q + m */
typedef struct {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
} pl_block_q5_0; /* w = d * (q - 16) */
typedef struct {
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
} pl_block_q5_1; /* w = d * q + m */
typedef struct {
  uint16_t d;
  int8_t qs[32];
} pl_block_q8_0; /* w = d * q */
typedef struct {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
} pl_block_q4_K; /* w = d*sc*q - dmin*m */
typedef struct {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
} pl_block_q5_K;
typedef struct {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
} pl_block_q6_K; /* d*sc*(q-32) */
typedef struct {
  uint8_t scales[16]; /* sc in the low nibbles, m in the high ones, per 16 values */
  uint8_t qs[64];
  uint16_t d, dmin;
} pl_block_q2_K; /* w = d*sc*q - dmin*m */
typedef struct {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
} pl_block_q3_K; /* w = d*(sc-32)*(q-4) */
typedef struct {
  uint16_t d;
  uint8_t qs[16];
} pl_block_iq4_nl; /* w = d * value[q] */
typedef struct {
  uint16_t d, scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
} pl_block_iq4_xs; /* w = d*(sc-32)*value[q] */
typedef struct {
  uint8_t e;
  uint8_t qs[16];
} pl_block_mxfp4; /* w = 2^(e-128) * twice an E2M1 value */
/* Types whose weights are looked up in codebooks (quant/grids.h), multiplied by widening. */
typedef struct {
  uint16_t d;
  uint16_t qs[32]; /* per 32 values: four bytes of indices, then four times seven signs and a 4-bit scale */
} pl_block_iq2_xxs;
typedef struct {
  uint16_t d;
  uint16_t qs[32]; /* per 8 values: nine bits of index, seven signs */
  uint8_t scales[8];
} pl_block_iq2_xs;
typedef struct {
  uint16_t d;
  uint8_t qs[32], signs[32], qh[8],
      scales[8]; /* per 8 values: eight bits of index, eight signs, two bits of index */
} pl_block_iq2_s;
typedef struct {
  uint16_t d;
  uint8_t qs[64];     /* per 4 values: index */
  uint16_t signs[16]; /* per 32 values: four times seven signs and a 4-bit scale */
} pl_block_iq3_xxs;
typedef struct {
  uint16_t d;
  uint8_t qs[64], qh[8], signs[32], scales[4]; /* per 4 values: eight bits of index, one of qh; four signs */
} pl_block_iq3_s;
typedef struct {
  uint16_t d;
  uint8_t qs[32];
  uint16_t qh[8]; /* per 32 values: four times three bits of index, a 3-bit scale, the sign of the shift */
} pl_block_iq1_s;
typedef struct {
  uint8_t qs[32], qh[16];
  uint8_t scales[8]; /* 16 scales of 3 bits, and d in the top four bits of each word */
} pl_block_iq1_m;
/* Ternary types: w = d * (q - 1). */
typedef struct {
  uint8_t qs[48], qh[4]; /* five and four values per byte, as a fraction in base 3 */
  uint16_t d;
} pl_block_tq1_0;
typedef struct {
  uint8_t qs[64];
  uint16_t d;
} pl_block_tq2_0;
typedef struct {
  uint8_t d[4]; /* UE4M3, per 16 values */
  uint8_t qs[32];
} pl_block_nvfp4; /* w = d / 2 * twice an E2M1 value */
typedef struct {
  uint16_t d;
  uint8_t qs[16];
} pl_block_q1_0; /* w = q ? d : -d */
typedef struct {
  uint16_t d;
  uint8_t qs[16];
} pl_block_q2_0; /* w = d * (q - 1) */
_Static_assert(sizeof(pl_block_q4_0) == 18 && sizeof(pl_block_q4_1) == 20, "q4");
_Static_assert(sizeof(pl_block_q5_0) == 22 && sizeof(pl_block_q5_1) == 24, "q5");
_Static_assert(sizeof(pl_block_q8_0) == 34, "q8_0");
_Static_assert(sizeof(pl_block_q4_K) == 144 && sizeof(pl_block_q5_K) == 176 && sizeof(pl_block_q6_K) == 210, "K");
_Static_assert(sizeof(pl_block_q2_K) == 84 && sizeof(pl_block_q3_K) == 110, "K");
_Static_assert(sizeof(pl_block_iq4_nl) == 18 && sizeof(pl_block_iq4_xs) == 136, "iq4");
_Static_assert(sizeof(pl_block_mxfp4) == 17, "mxfp4");
_Static_assert(sizeof(pl_block_iq2_xxs) == 66 && sizeof(pl_block_iq2_xs) == 74 && sizeof(pl_block_iq2_s) == 82,
               "iq2");
_Static_assert(sizeof(pl_block_iq3_xxs) == 98 && sizeof(pl_block_iq3_s) == 110, "iq3");
_Static_assert(sizeof(pl_block_iq1_s) == 50 && sizeof(pl_block_iq1_m) == 56, "iq1");
_Static_assert(sizeof(pl_block_tq1_0) == 54 && sizeof(pl_block_tq2_0) == 66, "tq");
_Static_assert(sizeof(pl_block_nvfp4) == 36, "nvfp4");
_Static_assert(sizeof(pl_block_q1_0) == 18 && sizeof(pl_block_q2_0) == 18, "q1_0, q2_0");

#endif
