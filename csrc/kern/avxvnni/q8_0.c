#include "kern/avxvnni/mm.h"

PL_TILE_ZERO(16 * sizeof(pl_block_q8_0), half8, 2, 128, code_s8)
PL_MM(Q8_0, avxvnni)
