#include "prog/kv.h"

#include <string.h>

#include "base/half.h"

static int64_t head_bytes(int32_t type, int32_t head_dim) {
  int64_t n = (int64_t)pl_kv_dim(head_dim) * PL_PAGE;
  switch (type) {
    case PL_F32:
      return n * 4;
    case PL_F16:
    case PL_BF16:
      return n * 2;
    case PL_Q8_0:
      return head_dim % 32 ? 0 : n + n / 32 * 2;
    default:
      return 0;
  }
}

int64_t pl_kv_page_bytes(int32_t type, int32_t n_kv, int32_t head_dim) {
  return n_kv > 0 && head_dim > 0 ? n_kv * head_bytes(type, head_dim) : 0;
}

/* int8 of x [32] with one float16 scale: round(x / d), d the stored scale; -127 for NaN. */
static uint16_t quantize32(const float *x, int8_t *q) {
  float amax = 0;
  for (int i = 0; i < 32; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
  uint16_t h = pl_f32_f16(amax / 127.0f);
  float d = pl_f16_f32(h), inv = d > 0 ? 1.0f / d : 0;
  for (int i = 0; i < 32; i++) {
    float v = rintf(x[i] * inv);
    q[i] = (int8_t)(v >= -127 ? v > 127 ? 127 : v : -127);
  }
  return h;
}

static uint16_t f32_bf16(float f) {
  uint32_t u = pl_f32_bits(f);
  if ((u & 0x7fffffff) > 0x7f800000u) return (uint16_t)(u >> 16 | 64);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void pl_kv_put_k(const pl_kern_table *k, int32_t type, const float *x, int32_t head_dim, int32_t j, void *head) {
  int32_t hdp = pl_kv_dim(head_dim);
  if (type == PL_F32) {
    for (int32_t d = 0; d < head_dim; d++) ((float *)head)[d * PL_PAGE + j] = x[d];
  } else if (type == PL_F16) {
    for (int32_t d = 0; d < head_dim; d++) ((uint16_t *)head)[d * PL_PAGE + j] = pl_f32_f16(x[d]);
  } else if (type == PL_BF16) {
    for (int32_t d = 0; d < head_dim; d++) ((uint16_t *)head)[d * PL_PAGE + j] = f32_bf16(x[d]);
  } else {
    int8_t q[32];
    uint16_t *scales = (uint16_t *)((int8_t *)head + hdp * PL_PAGE);
    for (int32_t b = 0; b < head_dim / 32; b++) {
      scales[b * PL_PAGE + j] = quantize32(x + b * 32, q);
      for (int32_t d = 0; d < 32; d++) ((int8_t *)head)[(b * 32 + d) * PL_PAGE + j] = q[d];
    }
  }
}

void pl_kv_put_v(const pl_kern_table *k, int32_t type, const float *x, int32_t head_dim, int32_t j, void *head) {
  int32_t hdp = pl_kv_dim(head_dim);
  if (type == PL_F32) {
    memcpy((float *)head + j * hdp, x, (size_t)head_dim * 4);
  } else if (type == PL_F16) {
    k->store_f16(x, head_dim, (uint16_t *)head + j * hdp);
  } else if (type == PL_BF16) {
    for (int32_t d = 0; d < head_dim; d++) ((uint16_t *)head)[j * hdp + d] = f32_bf16(x[d]);
  } else {
    uint16_t *scales = (uint16_t *)((int8_t *)head + hdp * PL_PAGE);
    for (int32_t b = 0; b < head_dim / 32; b++)
      scales[j * (hdp / 32) + b] = quantize32(x + b * 32, (int8_t *)head + j * hdp + b * 32);
  }
}

static const float *widen(const pl_kern_table *k, int32_t type, const void *head, int64_t n, float *tmp) {
  if (type == PL_F32) return head;
  if (type == PL_F16)
    k->load_f16(head, n, tmp);
  else
    for (int64_t i = 0; i < n; i++) tmp[i] = pl_bf16_f32(((const uint16_t *)head)[i]);
  return tmp;
}

const float *pl_kv_get_k(const pl_kern_table *k, int32_t type, const void *head, int32_t head_dim, float *tmp) {
  int32_t hdp = pl_kv_dim(head_dim);
  if (type != PL_Q8_0) return widen(k, type, head, (int64_t)hdp * PL_PAGE, tmp);
  const uint16_t *scales = (const uint16_t *)((const int8_t *)head + hdp * PL_PAGE);
  float s[PL_PAGE];
  for (int32_t d = 0; d < hdp; d++) {
    if (d % 32 == 0) k->load_f16(scales + d / 32 * PL_PAGE, PL_PAGE, s);
    for (int32_t j = 0; j < PL_PAGE; j++)
      tmp[d * PL_PAGE + j] = s[j] * (float)((const int8_t *)head)[d * PL_PAGE + j];
  }
  return tmp;
}

const float *pl_kv_get_v(const pl_kern_table *k, int32_t type, const void *head, int32_t head_dim, float *tmp) {
  int32_t hdp = pl_kv_dim(head_dim);
  if (type != PL_Q8_0) return widen(k, type, head, (int64_t)hdp * PL_PAGE, tmp);
  const uint16_t *scales = (const uint16_t *)((const int8_t *)head + hdp * PL_PAGE);
  for (int32_t b = 0; b < hdp * PL_PAGE / 32; b++) {
    float s = pl_f16_f32(scales[b]);
    for (int32_t d = 0; d < 32; d++) tmp[b * 32 + d] = s * (float)((const int8_t *)head)[b * 32 + d];
  }
  return tmp;
}
