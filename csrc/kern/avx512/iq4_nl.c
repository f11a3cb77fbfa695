#include "kern/avx512/pair.h"

PL_TILE_ZERO(16 * sizeof(pl_block_iq4_nl), half16, 32, 128, dot_iq4)
PL_MM8(IQ4_NL)
PL_PAIR_ZERO(IQ4_NL, 16 * sizeof(pl_block_iq4_nl), half16, 32, 128, put_iq4)
