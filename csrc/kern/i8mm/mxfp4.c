#include "kern/i8mm/mm.h"

PL_PACK(MXFP4, i8mm, pl_block_mxfp4, 32)
PL_TILE_ZERO(BLOCK_MXFP4, e8m0_half4, 16, 0, 0, code_e2m1)
PL_MM(MXFP4, i8mm)
