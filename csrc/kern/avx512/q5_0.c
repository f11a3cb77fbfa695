#include "kern/avx512/pair.h"

PL_TILE_ZERO(16 * sizeof(pl_block_q5_0), half16, 32, 16, dot_u5)
PL_MM8(Q5_0)
PL_PAIR_ZERO(Q5_0, 16 * sizeof(pl_block_q5_0), half16, 32, 16, put_u5)
