#include "op.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../utf8.h"

#define ALIGNMENT 64
#define MAX_SIZE ((int64_t)1 << 40)

/* A file's names and attributes may be any bytes, or be cut within a character, and
   what reads the sentence decodes it. */
static void replace_invalid(char *text) {
  for (const char *end = text + strlen(text); text < end;) {
    const int64_t size = din_utf8_size(text, end - text);
    if (size == 0) *text = '?';
    text += size ? size : 1;
  }
}

void din_fail(din_op *op, const char *format, ...) {
  char message[512];
  va_list arguments;
  if (op->status) return;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  replace_invalid(message);
  op->status = op->api->CreateStatus(ORT_INVALID_ARGUMENT, message);
}

void din_check(din_op *op, OrtStatus *status) {
  if (status == NULL) return;
  if (op->status) {
    op->api->ReleaseStatus(status);
  } else {
    op->status = status;
  }
}

/* ---- attributes ---- */

static void check_attribute(din_op *op, OrtStatus *status, const char *name) {
  if (status == NULL) return;
  din_fail(op, "expected such an attribute, got: %s - at `%s attribute %s`",
           op->api->GetErrorMessage(status), op->name, name);
  op->api->ReleaseStatus(status);
}

int64_t din_attribute_int(din_op *op, const OrtKernelInfo *info, const char *name) {
  int64_t value = 0;
  if (op->status) return 0;
  check_attribute(op, op->api->KernelInfoGetAttribute_int64(info, name, &value), name);
  return value;
}

int din_attribute_flag(din_op *op, const OrtKernelInfo *info, const char *name) {
  int64_t value = din_attribute_int(op, info, name);
  if (!op->status && value != 0 && value != 1) {
    din_fail(op, "expected 0 or 1, got %lld - at `%s attribute %s`", (long long)value,
             op->name, name);
  }
  return value == 1;
}

float din_attribute_float(din_op *op, const OrtKernelInfo *info, const char *name) {
  float value = 0.0f;
  if (op->status) return 0.0f;
  check_attribute(op, op->api->KernelInfoGetAttribute_float(info, name, &value), name);
  if (!op->status && !isfinite(value)) {
    din_fail(op, "expected a finite number, got %g - at `%s attribute %s`",
             (double)value, op->name, name);
  }
  return value;
}

/* `size` is what the runtime says of a text: its bytes and the zero behind them. */
static void check_text(din_op *op, const char *name, const char *text, size_t size) {
  if (!op->status && strlen(text) + 1 != size) {
    din_fail(op,
             "expected text without zeros, got %.60s and more - at `%s attribute %s`",
             text, op->name, name);
  }
}

void din_attribute_text(din_op *op, const OrtKernelInfo *info, const char *name,
                        char *out, size_t size) {
  size_t needed = size;
  out[0] = '\0';
  if (op->status) return;
  check_attribute(op, op->api->KernelInfoGetAttribute_string(info, name, out, &needed),
                  name);
  out[size - 1] = '\0';
  check_text(op, name, out, needed);
}

char *din_attribute_long_text(din_op *op, const OrtKernelInfo *info, const char *name,
                              size_t *size) {
  *size = 0;
  if (op->status) return NULL;
  check_attribute(op, op->api->KernelInfoGetAttribute_string(info, name, NULL, size),
                  name);
  char *text = din_allocate(op, (int64_t)*size + 1, 1);
  if (text == NULL) return NULL;
  check_attribute(op, op->api->KernelInfoGetAttribute_string(info, name, text, size),
                  name);
  check_text(op, name, text, *size);
  *size = strlen(text);
  if (!op->status) return text;
  din_free(text);
  return NULL;
}

size_t din_attribute_ints(din_op *op, const OrtKernelInfo *info, const char *name,
                          int64_t *out, size_t count) {
  if (op->status) return 0;
  check_attribute(
      op, op->api->KernelInfoGetAttributeArray_int64(info, name, out, &count), name);
  return op->status ? 0 : count;
}

int din_attribute_choice(din_op *op, const OrtKernelInfo *info, const char *name,
                         const char *const *names) {
  char text[32], rule[128] = "";
  din_attribute_text(op, info, name, text, sizeof text);
  if (op->status) return 0;
  for (int i = 0; names[i]; i++) {
    if (strcmp(text, names[i]) == 0) return i;
    strncat(rule, i ? ", " : "", sizeof rule - strlen(rule) - 1);
    strncat(rule, names[i], sizeof rule - strlen(rule) - 1);
  }
  din_fail(op, "expected one of %s, got %s - at `%s attribute %s`", rule, text,
           op->name, name);
  return 0;
}

/* ---- tensors ---- */

din_tensor din_describe(din_op *op, const OrtValue *value, const char *name) {
  const din_tensor none = {NULL, ORT_UNDEFINED, 0, {0, 0, 0}};
  din_tensor t = none;
  OrtTensorInfo *info = NULL;
  if (op->status) return t;
  if (value == NULL) {
    din_fail(op, "expected a tensor, got none - at `%s input %s`", op->name, name);
    return t;
  }
  din_check(op, op->api->GetTensorTypeAndShape(value, &info));
  if (op->status) return t;
  din_check(op, op->api->GetTensorElementType(info, &t.type));
  din_check(op, op->api->GetDimensionsCount(info, &t.rank));
  if (!op->status && t.rank > DIN_MAX_RANK) {
    din_fail(op, "expected at most %d dimensions, got %zu - at `%s input %s`",
             DIN_MAX_RANK, t.rank, op->name, name);
  }
  if (!op->status && t.rank)
    din_check(op, op->api->GetDimensions(info, t.dims, t.rank));
  op->api->ReleaseTensorTypeAndShapeInfo(info);
  for (size_t i = 0; !op->status && i < t.rank; i++) {
    /* sizes of an empty tensor can be anything */
    if (t.dims[i] < 0 || t.dims[i] > MAX_SIZE) {
      din_fail(op, "expected sizes in [0, 2^40], got %lld - at `%s input %s`",
               (long long)t.dims[i], op->name, name);
    }
  }
  if (!op->status) {
    din_check(op, op->api->GetTensorMutableData((OrtValue *)(uintptr_t)value, &t.data));
  }
  return op->status ? none : t; /* nobody is to compute with refused sizes */
}

din_tensor din_constant(din_op *op, const OrtKernelInfo *info, size_t index,
                        const char *name) {
  const OrtValue *value = NULL;
  int is_constant = 0;
  if (!op->status) {
    din_check(op, op->api->KernelInfoGetConstantInput_tensor(info, index, &is_constant,
                                                             &value));
  }
  if (!op->status && !is_constant) {
    din_fail(op,
             "expected a constant of the graph, got a computed tensor"
             " - at `%s input %s`",
             op->name, name);
  }
  return din_describe(op, value, name);
}

din_tensor din_input(din_op *op, const OrtKernelContext *context, size_t index,
                     const char *name) {
  const OrtValue *value = NULL;
  if (!op->status) {
    din_check(op, op->api->KernelContext_GetInput(context, index, &value));
  }
  return din_describe(op, value, name);
}

static const char *type_name(int type) {
  return type == ORT_FLOAT     ? "float32"
         : type == ORT_INT64   ? "int64"
         : type == ORT_FLOAT16 ? "float16"
         : type == ORT_UINT8   ? "uint8"
         : type == ORT_INT32   ? "int32"
         : type == ORT_STRING  ? "strings"
         : type == ORT_DOUBLE  ? "float64"
                               : "another type";
}

/* The type of a tensor. */
static int type_of(din_op *op, const OrtValue *value) {
  OrtTensorInfo *info = NULL;
  int type = ORT_UNDEFINED;
  din_check(op, op->api->GetTensorTypeAndShape(value, &info));
  if (op->status) return type;
  din_check(op, op->api->GetTensorElementType(info, &type));
  op->api->ReleaseTensorTypeAndShapeInfo(info);
  return type;
}

void *din_output(din_op *op, OrtKernelContext *context, size_t index, const char *name,
                 int type, const int64_t *dims, size_t rank) {
  OrtValue *value = NULL;
  void *data = NULL;
  if (op->status) return NULL;
  din_check(op, op->api->KernelContext_GetOutput(context, index, dims, rank, &value));
  if (!op->status && value == NULL) {
    din_fail(op, "expected a use of the output, got none - at `%s output %s`", op->name,
             name);
  }
  if (op->status) return NULL;
  const int given = type_of(op, value); /* the graph's: a file may say anything */
  if (!op->status && given != type) {
    din_fail(op, "expected %s, got %s - at `%s output %s`", type_name(type),
             type_name(given), op->name, name);
  }
  if (!op->status) din_check(op, op->api->GetTensorMutableData(value, &data));
  return data;
}

void din_expect_outputs(din_op *op, const OrtKernelInfo *info, size_t least,
                        size_t most) {
  size_t count = 0;
  if (op->status) return;
  din_check(op, op->api->KernelInfo_GetOutputCount(info, &count));
  if (!op->status && (count < least || count > most)) {
    din_fail(op, "expected %zu outputs, got %zu - at `%s`",
             count < least ? least : most, count, op->name);
  }
}

static void write_shape(char *out, size_t size, size_t rank, const int64_t *dims) {
  size_t used = (size_t)snprintf(out, size, "[");
  for (size_t i = 0; i < rank && used < size; i++) {
    const char *comma = i ? ", " : "";
    used += (size_t)(dims[i] < 0 ? snprintf(out + used, size - used, "%s*", comma)
                                 : snprintf(out + used, size - used, "%s%lld", comma,
                                            (long long)dims[i]));
  }
  if (used < size) snprintf(out + used, size - used, "]");
}

void din_expect(din_op *op, const din_tensor *t, const char *name, int type,
                size_t rank, const int64_t *dims) {
  char wanted[80], got[80];
  if (op->status) return;
  if (t->type != type) {
    din_fail(op, "expected %s, got %s - at `%s input %s`", type_name(type),
             type_name(t->type), op->name, name);
    return;
  }
  int same = t->rank == rank;
  for (size_t i = 0; same && i < rank; i++) {
    same = dims[i] < 0 || t->dims[i] == dims[i];
  }
  if (!same) {
    write_shape(wanted, sizeof wanted, rank, dims);
    write_shape(got, sizeof got, t->rank, t->dims);
    din_fail(op, "expected shape %s, got %s - at `%s input %s`", wanted, got, op->name,
             name);
  }
}

din_table din_expect_table(din_op *op, const din_tensor *t, const char *name) {
  const int64_t any[2] = {-1, -1};
  int is_half = t->type == ORT_FLOAT16;
  din_expect(op, t, name, is_half ? ORT_FLOAT16 : ORT_FLOAT, 2, any);
  if (!op->status && (t->dims[1] < 1 || t->dims[1] > INT32_MAX)) {
    din_fail(op, "expected rows of at least 1 value, got %lld - at `%s input %s`",
             (long long)t->dims[1], op->name, name);
  }
  /* Without rows a table has any width: outputs would be of sizes that no file backs. */
  if (!op->status && t->dims[0] < 1) {
    din_fail(op, "expected at least 1 row, got 0 - at `%s input %s`", op->name, name);
  }
  return (din_table){t->data, t->dims[0], t->dims[1], is_half};
}

int64_t *din_copy_range(din_op *op, const int64_t *values, int64_t count, int64_t stop,
                        const char *name) {
  int64_t *copy = din_allocate(op, count, sizeof *copy);
  for (int64_t i = 0; copy && i < count; i++) {
    copy[i] = din_read_once(&values[i]);
    if ((uint64_t)copy[i] < (uint64_t)stop) continue;
    din_fail(op, "expected a value in [0, %lld), got %lld - at `%s input %s[%lld]`",
             (long long)stop, (long long)copy[i], op->name, name, (long long)i);
    break;
  }
  return copy;
}

/* ---- memory ---- */

/* Aligned by hand, for C libraries without aligned_alloc; the address to free lies in
   front. */
static void *allocate(size_t bytes) {
  char *raw = bytes < SIZE_MAX / 2 ? malloc(bytes + 2 * ALIGNMENT) : NULL;
  if (raw == NULL) return NULL;
  char *aligned = raw + 2 * ALIGNMENT - (uintptr_t)raw % ALIGNMENT;
  memcpy(aligned - sizeof raw, &raw, sizeof raw);
  return aligned;
}

void *din_allocate(din_op *op, int64_t count, size_t size) {
  void *memory = NULL;
  if (op->status) return NULL;
  if (count >= 0 && (uint64_t)count < SIZE_MAX / 2 / size) {
    memory = allocate((size_t)count * size);
  }
  if (memory == NULL) {
    din_fail(op, "expected memory for %lld values, got none - at `%s`",
             (long long)count, op->name);
    return NULL;
  }
  return memset(memory, 0, (size_t)count * size);
}

void din_free(void *memory) {
  char *raw;
  if (memory == NULL) return;
  memcpy(&raw, (char *)memory - sizeof raw, sizeof raw);
  free(raw);
}

/* In front of each scratch: the next idle one. A spinning lock is held for a few
   instructions, a few times a run. */
typedef struct pool_block {
  struct pool_block *next;
  char rest[ALIGNMENT - sizeof(void *)];
} pool_block;

struct din_pool {
  atomic_flag locked;
  pool_block *idle;
  size_t scratch_bytes;
};

static void lock(din_pool *pool) {
  while (atomic_flag_test_and_set_explicit(&pool->locked, memory_order_acquire)) {
  }
}

static void unlock(din_pool *pool) {
  atomic_flag_clear_explicit(&pool->locked, memory_order_release);
}

din_pool *din_pool_create(din_op *op, int64_t num_floats) {
  din_pool *pool = din_allocate(op, 1, sizeof *pool);
  if (pool) {
    atomic_flag_clear(&pool->locked);
    pool->scratch_bytes = (size_t)num_floats * sizeof(float);
  }
  return pool;
}

void din_pool_destroy(din_pool *pool) {
  if (pool == NULL) return;
  for (pool_block *next, *block = pool->idle; block; block = next) {
    next = block->next;
    din_free(block);
  }
  din_free(pool);
}

float *din_pool_take(din_pool *pool) {
  lock(pool);
  pool_block *block = pool->idle;
  if (block) pool->idle = block->next;
  unlock(pool);
  if (block == NULL) block = allocate(sizeof *block + pool->scratch_bytes);
  return block ? (float *)(void *)(block + 1) : NULL;
}

void din_pool_give(din_pool *pool, float *scratch) {
  pool_block *block = (pool_block *)(void *)scratch - 1;
  lock(pool);
  block->next = pool->idle;
  pool->idle = block;
  unlock(pool);
}

/* ---- work ---- */

#define MAX_CHUNKS 512

typedef struct chunks {
  const din_work *work;
  int64_t starts[MAX_CHUNKS + 1];
  int64_t count;
  atomic_int failed; /* 1: a fault; 2: no memory */
  din_fault fault;
} chunks;

static void run_chunk(void *data, size_t index) {
  chunks *c = data;
  din_fault fault;
  int none = 0;
  if (atomic_load_explicit(&c->failed, memory_order_relaxed)) return;
  float *scratch = din_pool_take(c->work->pool);
  if (scratch == NULL) {
    atomic_compare_exchange_strong(&c->failed, &none, 2);
    return;
  }
  int64_t first = c->starts[index], last = c->starts[index + 1];
  if (c->work->run(c->work->data, first, last, scratch, &fault) &&
      atomic_compare_exchange_strong(&c->failed, &none, 1)) {
    c->fault = fault; /* the first alone; read after all are done */
  }
  din_pool_give(c->work->pool, scratch);
}

/* Costs are limited, so that no sum of theirs overflows: items are at most 2^40. */
#define MAX_COST (1 << 22)
static int64_t cost_of(const din_work *w, int64_t item) {
  int64_t cost = w->cost ? w->cost(w->data, item) : w->even_cost;
  return cost < MAX_COST ? cost : MAX_COST;
}

static void split(chunks *c) {
  const din_work *w = c->work;
  int64_t total = 0, spent = 0, limit;
  if (w->cost == NULL) total = w->total * cost_of(w, 0);
  for (int64_t i = 0; w->cost && i < w->total; i++) total += cost_of(w, i);
  limit = total / (MAX_CHUNKS / 4) + 1;
  if (limit < w->chunk_cost) limit = w->chunk_cost;
  c->count = 0;
  c->starts[0] = 0;
  for (int64_t i = 0; i < w->total; i++) {
    int64_t cost = cost_of(w, i);
    /* a chunk ends before the item that would take it past the limit */
    if (spent > 0 && spent + cost > limit) c->starts[++c->count] = i, spent = 0;
    spent += cost;
  }
  c->starts[++c->count] = w->total;
}

int din_run(din_op *op, const OrtKernelContext *context, const din_work *work,
            din_fault *fault) {
  if (op->status || work->total == 0) return 0;
  chunks c = {.work = work};
  atomic_init(&c.failed, 0);
  split(&c);
  if (c.count == 1) {
    run_chunk(&c, 0);
  } else {
    size_t count = (size_t)c.count;
    din_check(op,
              op->api->KernelContext_ParallelFor(context, run_chunk, count, count, &c));
  }
  int failed = atomic_load(&c.failed);
  if (failed == 2) {
    din_fail(op, "expected scratch memory, got none - at `%s`", op->name);
  }
  if (failed == 1) *fault = c.fault;
  return failed == 1;
}
