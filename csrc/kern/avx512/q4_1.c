#include "kern/avx512/pair.h"

PL_TILE_MIN(16 * sizeof(pl_block_q4_1), 64, dot_u4)
PL_MM8(Q4_1)
PL_PAIR_MIN(Q4_1, 16 * sizeof(pl_block_q4_1), 64, put_u4)
