#include "kern/avxvnni/mm.h"

PL_TILE_K(352, code_u5)
PL_MM(Q5_K, avxvnni)
