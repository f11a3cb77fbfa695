#include "kern/avx512/mm.h"

PL_TILE_ZERO(16 * sizeof(pl_block_q5_0), half16, 32, 16, dot_u5)
PL_MM8(Q5_0)
