/* Preloaded: the n-th allocation of one library fails, as when memory is out.

   Allocations are told apart by who asks: calls of malloc, calloc and realloc by their
   return address; Python's own allocators, which stand in between, by the first frame
   outside Python. So what the library calls (NumPy, the runtime) has all its memory.
   For glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void __libc_free(void *memory);

typedef struct range {
  uintptr_t low, high;
} range;

static range library, python;
static atomic_long left, asked; /* left: until one fails; 0: none does */

static int find_range(struct dl_phdr_info *info, size_t size, void *data) {
  void **of = data;
  (void)size;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *p = &info->dlpi_phdr[i];
    uintptr_t low = info->dlpi_addr + p->p_vaddr, high = low + p->p_memsz;
    if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
    if ((uintptr_t)of[0] < low || (uintptr_t)of[0] >= high) continue;
    *(range *)of[1] = (range){low, high};
    return 1;
  }
  return 0;
}

static int is_in(const range *r, const void *address) {
  return (uintptr_t)address >= r->low && (uintptr_t)address < r->high;
}

static int fails(void) {
  atomic_fetch_add(&asked, 1);
  if (atomic_load(&left) <= 0 || atomic_fetch_sub(&left, 1) != 1) return 0;
  errno = ENOMEM;
  return 1;
}

/* ---- blocks that the library has ---- */

/* Whoever frees them: an open hash table, where 1 stands for what was taken out. */
enum { SLOTS = 1 << 16 };
static uintptr_t slots[SLOTS];
static long live;
static atomic_flag locked = ATOMIC_FLAG_INIT;

static void note(void *memory, int is_new) {
  const uintptr_t wanted = (uintptr_t)memory;
  uintptr_t *room = NULL;
  if (memory == NULL || library.high == 0) return;
  while (atomic_flag_test_and_set(&locked)) {
  }
  for (size_t i = 0, k = wanted * 0x9E3779B97F4A7C15u >> 48; i < SLOTS; i++, k++) {
    uintptr_t *slot = &slots[k % SLOTS];
    if (!is_new && *slot == wanted) {
      *slot = 1;
      live--;
      break;
    }
    if (room == NULL && *slot <= 1) room = slot;
    if (*slot == 0) break;
  }
  if (is_new && room != NULL) *room = wanted, live++;
  atomic_flag_clear(&locked);
}

/* ---- what the library calls itself ---- */

#define IS_OURS is_in(&library, __builtin_return_address(0))

EXPORT void *malloc(size_t size) {
  const int is_ours = IS_OURS;
  if (is_ours && fails()) return NULL;
  void *made = __libc_malloc(size);
  if (is_ours) note(made, 1);
  return made;
}

EXPORT void *calloc(size_t count, size_t size) {
  const int is_ours = IS_OURS;
  if (is_ours && fails()) return NULL;
  void *made = __libc_calloc(count, size);
  if (is_ours) note(made, 1);
  return made;
}

EXPORT void *realloc(void *memory, size_t size) {
  const int is_ours = IS_OURS;
  if (is_ours && fails()) return NULL;
  note(memory, 0);
  void *made = __libc_realloc(memory, size);
  if (is_ours) note(made ? made : memory, 1);
  return made;
}

EXPORT void free(void *memory) {
  note(memory, 0);
  __libc_free(memory);
}

/* ---- Python's allocators: PyMemAllocatorEx ---- */

typedef struct allocator {
  void *context;
  void *(*malloc)(void *context, size_t size);
  void *(*calloc)(void *context, size_t count, size_t size);
  void *(*realloc)(void *context, void *memory, size_t size);
  void (*free)(void *context, void *memory);
} allocator;

static allocator before[3]; /* by domain: raw, mem, object */

static int python_fails(void) {
  enum { MOST = 12 };
  void *frames[MOST];
  if (library.high == 0 || atomic_load(&left) < 0) return 0;
  const int count = backtrace(frames, MOST);
  for (int i = 2; i < count; i++) {
    if (is_in(&library, frames[i])) return fails();
    if (!is_in(&python, frames[i])) return 0;
  }
  return 0;
}

static void *python_malloc(void *context, size_t size) {
  const allocator *a = context;
  return python_fails() ? NULL : a->malloc(a->context, size);
}
static void *python_calloc(void *context, size_t count, size_t size) {
  const allocator *a = context;
  return python_fails() ? NULL : a->calloc(a->context, count, size);
}
static void *python_realloc(void *context, void *memory, size_t size) {
  const allocator *a = context;
  return python_fails() ? NULL : a->realloc(a->context, memory, size);
}
static void python_free(void *context, void *memory) {
  const allocator *a = context;
  a->free(a->context, memory);
}

/* Watches the library that `inside`, a function of it, is of. */
EXPORT void din_watch(void *inside) {
  void *of[2] = {inside, &library};
  dl_iterate_phdr(find_range, of);
}

/* Watches Python's allocators, too. With the GIL. */
EXPORT void din_watch_python(void) {
  void (*get)(int, allocator *) = NULL;
  void (*set)(int, allocator *) = NULL;
  void *symbol = dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
  memcpy(&get, &symbol, sizeof get);
  void *of[2] = {symbol, &python};
  symbol = dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
  memcpy(&set, &symbol, sizeof set);
  dl_iterate_phdr(find_range, of);
  void *warm[2];
  backtrace(warm, 2); /* which allocates the first time */
  for (int domain = 1; domain < 3; domain++) {
    get(domain, &before[domain]);
    allocator ours = {&before[domain], python_malloc, python_calloc, python_realloc,
                      python_free};
    set(domain, &ours);
  }
}

/* The n-th allocation from now on fails; 0: none does, and they are counted. */
EXPORT void din_fail_at(long n) {
  atomic_store(&asked, 0);
  atomic_store(&left, n);
}
EXPORT long din_asked(void) { return atomic_load(&asked); }
/* Blocks that the library has and has not freed, without those of Python. */
EXPORT long din_live(void) { return live; }
