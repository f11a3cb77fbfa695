#include "kern/avx512/mm.h"

PL_TILE_ZERO(16 * sizeof(pl_block_mxfp4), e8m0_half16, 16, 12, dot_e2m1)
PL_MM8(MXFP4)
