#include "kern/avxvnni/mm.h"

PL_TILE_ZERO(16 * sizeof(pl_block_iq4_nl), half8, 2, 128, code_iq4)
PL_MM(IQ4_NL, avxvnni)
