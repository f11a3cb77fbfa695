#include "kern/i8mm/mm.h"

PL_PACK(Q3_K, i8mm, pl_block_q3_K, 256)
PL_TILE_16(32, SUB_Q3_K, 0, 5, code_s3, signed_scale, PL_NO_MORE)
PL_MM(Q3_K, i8mm)
