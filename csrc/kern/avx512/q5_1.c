#include "kern/avx512/mm.h"

PL_TILE_MIN(16 * sizeof(pl_block_q5_1), 64, dot_u5)
PL_MM8(Q5_1)
