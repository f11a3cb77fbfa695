#include "kern/i8mm/mm.h"

PL_PACK(Q4_K, i8mm, pl_block_q4_K, 256)
PL_TILE_K(SUB_Q4_K, 0, 0, code_u4)
PL_MM(Q4_K, i8mm)
