#include "kern/neon/lanes.h"

#define LEVEL neon
#include "quant/enc/table.h"
