#include "kern/ref/lanes.h"

#define LEVEL ref
#include "quant/enc/k.h"
