#include "kern/i8mm/mm.h"

PL_PACK(Q4_1, i8mm, pl_block_q4_1, 32)
PL_TILE_MIN(BLOCK_Q4_1, 0, 0, code_u4)
PL_MM(Q4_1, i8mm)
