/* types.h: sizes of tensor types, from types.inc. */
#ifndef PL_TYPES_H
#define PL_TYPES_H
#include <stdint.h>

/* Bytes of a plain row of cols values; 0 for an unknown type. */
int64_t pl_row_bytes(int32_t type, int64_t cols);
/* Elements per block; 0 for an unknown type. */
int32_t pl_type_block(int32_t type);

/* What a matmul with weights of this type multiplies with. */
enum { PL_ACT_NONE = -1, PL_ACT_F32 = 0, PL_ACT_Q8 = 1 };
int32_t pl_type_act(int32_t type);

#endif
