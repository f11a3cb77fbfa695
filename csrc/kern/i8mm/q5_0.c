#include "kern/i8mm/mm.h"

PL_PACK(Q5_0, i8mm, pl_block_q5_0, 32)
PL_TILE_ZERO(BLOCK_Q5_0, half4, 32, 0, 3, code_s5)
PL_MM(Q5_0, i8mm)
