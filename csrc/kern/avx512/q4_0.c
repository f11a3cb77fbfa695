#include "kern/avx512/pair.h"

PL_TILE_ZERO(16 * sizeof(pl_block_q4_0), half16, 32, 8, dot_u4)
PL_MM8(Q4_0)
PL_PAIR_ZERO(Q4_0, 16 * sizeof(pl_block_q4_0), half16, 32, 8, put_u4)
