#include "kern/avxvnni/mm.h"

PL_TILE_MIN(16 * sizeof(pl_block_q5_1), code_u5)
PL_MM(Q5_1, avxvnni)
