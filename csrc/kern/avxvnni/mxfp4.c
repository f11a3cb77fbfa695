#include "kern/avxvnni/mm.h"

PL_TILE_ZERO(16 * sizeof(pl_block_mxfp4), e8m0_half8, 1, 16, code_e2m1)
PL_MM(MXFP4, avxvnni)
