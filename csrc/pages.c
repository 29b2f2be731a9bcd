#define _DEFAULT_SOURCE /* madvise */

#include "pages.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

void *din_allocate_pages(uint64_t num_bytes) {
  uint8_t *data = num_bytes <= SIZE_MAX ? calloc(1, (size_t)num_bytes) : NULL;
#if defined(MADV_HUGEPAGE)
  const size_t huge = (size_t)2 << 20;
  if (data != NULL && num_bytes >= 2 * huge) {
    const size_t skip = (huge - (uintptr_t)data % huge) % huge;
    madvise(data + skip, ((size_t)num_bytes - skip) / huge * huge, MADV_HUGEPAGE);
  }
#endif
  return data;
}
