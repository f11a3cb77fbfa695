#include "kern/i8mm/mm.h"

PL_PACK(Q4_0, i8mm, pl_block_q4_0, 32)
PL_TILE_ZERO(BLOCK_Q4_0, half4, 32, 0, 4, code_s4)
PL_MM(Q4_0, i8mm)
