#include "kern/avx512/pair.h"

PL_TILE_K(288, dot_u4)
PL_MM8(Q4_K)
PL_PAIR_K(Q4_K, 288, put_u4)
