#include "kern/i8mm/mm.h"

PL_PACK(Q6_K, i8mm, pl_block_q6_K, 256)
PL_TILE_16(32, SUB_Q6_K, 0, 2, code_s6, signed_scale, PL_NO_MORE)
PL_MM(Q6_K, i8mm)
