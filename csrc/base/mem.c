#include "base/mem.h"

#include <stddef.h>
#include <stdint.h>

#include "pyllm.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

void *pl_mem_alloc(int64_t bytes, int32_t huge) {
  (void)huge; /* large pages need a privilege here, and would be resident at once */
  return bytes > 0 ? VirtualAlloc(NULL, (SIZE_T)bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE) : NULL;
}
void pl_mem_free(void *p, int64_t bytes) {
  if (p) VirtualFree(p, 0, MEM_RELEASE);
}
void pl_mem_drop(const void *p, int64_t bytes) {
  (void)p; /* the system takes pages of mapped files back by itself */
  (void)bytes;
}
#else
#include <sys/mman.h>
#include <unistd.h>

void *pl_mem_alloc(int64_t bytes, int32_t huge) {
  if (bytes <= 0) return NULL;
  void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
#if defined(MADV_HUGEPAGE)
  if (huge && bytes >= 4 << 20) madvise(p, (size_t)bytes, MADV_HUGEPAGE);
#endif
  return p;
}
void pl_mem_free(void *p, int64_t bytes) {
  if (p) munmap(p, (size_t)bytes);
}
void pl_mem_drop(const void *p, int64_t bytes) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)p & ~(page - 1);
  uintptr_t last = ((uintptr_t)p + (uintptr_t)bytes + page - 1) & ~(page - 1);
  madvise((void *)first, last - first, MADV_DONTNEED);
}
#endif
