#include "kern/avxvnni/mm.h"

PL_TILE_MIN(16 * sizeof(pl_block_q4_1), code_u4)
PL_MM(Q4_1, avxvnni)
