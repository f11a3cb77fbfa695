#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q8_0, dotprod, 32)
PL_PACK(Q8_0, dotprod, pl_block_q8_0, 32)
PL_TILE_ZERO(BLOCK_Q8_0, half4, 32, 0, 0, code_s8)
PL_MM(Q8_0, dotprod)
