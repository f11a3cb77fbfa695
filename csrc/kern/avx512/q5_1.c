#include "kern/avx512/pair.h"

PL_TILE_MIN(16 * sizeof(pl_block_q5_1), 64, dot_u5)
PL_MM8(Q5_1)
PL_PAIR_MIN(Q5_1, 16 * sizeof(pl_block_q5_1), 64, put_u5)
