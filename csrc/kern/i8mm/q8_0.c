#include "kern/i8mm/mm.h"

PL_PACK(Q8_0, i8mm, pl_block_q8_0, 32)
PL_TILE_ZERO(BLOCK_Q8_0, half4, 32, 0, 0, code_s8)
PL_MM(Q8_0, i8mm)
