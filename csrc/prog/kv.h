/* kv.h: the bytes of the KV cache.
 *
 * A cache view has one row per page; a page holds PL_PAGE (16) tokens of all KV heads, head after head. One head's part,
 * by type, hdp being head_dim rounded up to 16 (F32 F16 BF16) or 32 (Q8_0 Q4_0), with zeros beyond head_dim:
 *   F32 F16 BF16   K [hdp][16]: key j's value d at d * 16 + j, so that sixteen keys are scored at once
 *                  V [16][hdp]: value rows
 *   Q8_0           K codes int8 [hdp/4][16][4]: four values of a key side by side; then d [hdp/32][16],
 *                  offset int8 [hdp], its scales [hdp/32]
 *                  V codes int8 [16][hdp], then d [hdp/32][16]
 *   Q4_0           K codes [hdp/8][16][4]: byte i of key j in line g has value 8g + i below and 8g + 4 + i above; then
 *                  d [hdp/32][16], offset int8 [hdp], its scales [hdp/32]
 *                  V codes [16][hdp/32][16]: byte i of a block has value i below and 16 + i above; then d [hdp/32][16]
 * d and scales are float16, per 32 values of a key: value = d * code, code less 8 in Q4_0.
 *
 * Quantized vectors other than Q8_0's V are rotated first (pl_rotate_fn), which spreads what few channels carry;
 * queries are rotated with the keys, and outputs back. Quantized keys are kept as differences from the first key of
 * their page (in its 8-bit form, the offset), which takes away what keys have in common, such as large biases. */
#ifndef PL_KV_H
#define PL_KV_H
#include <stdint.h>

#include "kern/kern.h"

/* head_dim as the cache of this type pads it. */
int32_t pl_kv_dim(int32_t type, int32_t head_dim);
/* Values that are rotated together; 0: none. */
int32_t pl_kv_rotation_k(int32_t type);
int32_t pl_kv_rotation_v(int32_t type, int32_t hdp);
static inline int pl_kv_quantized(int32_t type) { return type == PL_Q8_0 || type == PL_Q4_0; }

#endif
