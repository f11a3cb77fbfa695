#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(MXFP4, dotprod, 32)
PL_PACK(MXFP4, dotprod, pl_block_mxfp4, 32)
PL_TILE_ZERO(BLOCK_MXFP4, e8m0_half4, 16, 0, 0, code_e2m1)
PL_MM(MXFP4, dotprod)
