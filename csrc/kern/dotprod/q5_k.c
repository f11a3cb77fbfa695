#include "kern/dotprod/mm.h"

PL_PANEL_BYTES(Q5_K, dotprod, 256)
PL_PACK(Q5_K, dotprod, pl_block_q5_K, 256)
PL_TILE_K(SUB_Q5_K, 128, 3, code_s5)
PL_MM(Q5_K, dotprod)
