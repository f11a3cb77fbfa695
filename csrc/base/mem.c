#include <stddef.h>
#include <stdint.h>

#include "pyllm.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

void *pl_mem_alloc(int64_t bytes) {
  return bytes > 0 ? VirtualAlloc(NULL, (SIZE_T)bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) : NULL;
}
void pl_mem_free(void *p, int64_t bytes) {
  if (p) VirtualFree(p, 0, MEM_RELEASE);
}
#else
#include <sys/mman.h>

void *pl_mem_alloc(int64_t bytes) {
  if (bytes <= 0) return NULL;
  void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
#if defined(MADV_HUGEPAGE)
  if (bytes >= 4 << 20) madvise(p, (size_t)bytes, MADV_HUGEPAGE);
#endif
  return p;
}
void pl_mem_free(void *p, int64_t bytes) {
  if (p) munmap(p, (size_t)bytes);
}
#endif
