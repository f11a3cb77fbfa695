/* kv.h: the bytes of the KV cache.
 *
 * A cache view has one row per page; a page holds PL_PAGE (16) tokens of all KV heads, head after head:
 *   K, per head  [hdp][16]: key j's value d at d * 16 + j, so that sixteen keys are scored at once
 *   V, per head  [16][hdp]: value rows
 * with hdp = head_dim rounded up to 16 (the rest is zero). Types: F32, F16, BF16, and Q8_0: int8 in the same
 * order, followed by float16 scales per 32 values of a key: [hdp/32][16] for K, [16][hdp/32] for V (head_dim % 32
 * == 0). */
#ifndef PL_KV_H
#define PL_KV_H
#include <stdint.h>

#include "kern/kern.h"

static inline int32_t pl_kv_dim(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }
/* Store x [head_dim] as token j of one head's part of a page. */
void pl_kv_put_k(const pl_kern_table *k, int32_t type, const float *x, int32_t head_dim, int32_t j, void *head);
void pl_kv_put_v(const pl_kern_table *k, int32_t type, const float *x, int32_t head_dim, int32_t j, void *head);
/* One head's part of a page as floats: K [hdp][16], V [16][hdp]. May return the cache itself (F32). */
const float *pl_kv_get_k(const pl_kern_table *k, int32_t type, const void *head, int32_t head_dim, float *tmp);
const float *pl_kv_get_v(const pl_kern_table *k, int32_t type, const void *head, int32_t head_dim, float *tmp);

#endif
