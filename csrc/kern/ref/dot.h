/* dot.h: integer dot products of the reference kernels. */
#ifndef PL_REF_DOT_H
#define PL_REF_DOT_H
#include <stdint.h>

/* sum of (w [n] - zero) * a [n] */
static inline int32_t dot(const uint8_t *w, int zero, const int8_t *a, int n) {
  int32_t sum = 0;
  for (int i = 0; i < n; i++) sum += (w[i] - zero) * a[i];
  return sum;
}

/* sum of w [n] * a [n] */
static inline int32_t dot_signed(const int8_t *w, const int8_t *a, int n) {
  int32_t sum = 0;
  for (int i = 0; i < n; i++) sum += w[i] * a[i];
  return sum;
}

/* sum of value[w [n]] * a [n] */
static inline int32_t dot_values(const int8_t *value, const uint8_t *w, const int8_t *a, int n) {
  int32_t sum = 0;
  for (int i = 0; i < n; i++) sum += value[w[i]] * a[i];
  return sum;
}

#endif
