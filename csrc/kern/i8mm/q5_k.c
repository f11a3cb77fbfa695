#include "kern/i8mm/mm.h"

PL_PACK(Q5_K, i8mm, pl_block_q5_K, 256)
PL_TILE_K(SUB_Q5_K, 128, 3, code_s5)
PL_MM(Q5_K, i8mm)
