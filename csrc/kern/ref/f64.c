#include <string.h>

#include "kern/kern.h"

void pl_deq_F64_ref(const void *src, float *y, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    double x;
    memcpy(&x, (const uint8_t *)src + 8 * i, 8); /* rows may begin at any multiple of 4 */
    y[i] = (float)x;
  }
}
