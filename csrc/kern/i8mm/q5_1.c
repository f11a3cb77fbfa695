#include "kern/i8mm/mm.h"

PL_PACK(Q5_1, i8mm, pl_block_q5_1, 32)
PL_TILE_MIN(BLOCK_Q5_1, 128, 3, code_s5)
PL_MM(Q5_1, i8mm)
