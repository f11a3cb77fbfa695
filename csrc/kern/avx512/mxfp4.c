#include "kern/avx512/pair.h"

PL_TILE_ZERO(16 * sizeof(pl_block_mxfp4), e8m0_half16, 16, 16, dot_e2m1)
PL_MM8(MXFP4)
PL_PAIR_ZERO(MXFP4, 16 * sizeof(pl_block_mxfp4), e8m0_half16, 16, 16, put_e2m1)
