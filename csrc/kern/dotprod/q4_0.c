#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q4_0, dotprod, 32)
PL_PACK(Q4_0, dotprod, pl_block_q4_0, 32)
PL_TILE_ZERO(BLOCK_Q4_0, half4, 32, 0, 4, code_s4)
PL_MM(Q4_0, dotprod)
