#include "kern/avx512/pair.h"

PL_TILE_K(352, dot_u5)
PL_MM8(Q5_K)
PL_PAIR_K(Q5_K, 352, put_u5)
