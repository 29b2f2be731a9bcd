/* What the operators share: reading a kernel's inputs and attributes with one clear
   error, memory, and work on the runtime's own threads. */
#ifndef DIN_OPS_OP_H_
#define DIN_OPS_OP_H_

#include <stdarg.h>

#include "isa.h"
#include "ort_abi.h"

#define DIN_MAX_RANK 3

/* One tensor as the runtime shows it; the memory is the runtime's. */
typedef struct din_tensor {
  void *data;
  int type;
  size_t rank;
  int64_t dims[DIN_MAX_RANK];
} din_tensor;

/* Every failure is a status with `expected .., got .. - at `..``; the first one stays.
   Functions that take an op do nothing once it has failed. */
typedef struct din_op {
  const OrtApi *api;
  const char *name; /* of the operator, for errors */
  OrtStatus *status;
} din_op;

/* Records a failure, unless there is one. */
void din_fail(din_op *op, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Takes over a status of the runtime's. */
void din_check(din_op *op, OrtStatus *status);
static inline int din_failed(const din_op *op) { return op->status != NULL; }

/* Attributes; a missing one, one of another type, or one too long for `size` bytes or
   `count` values, is a failure. */
int64_t din_attribute_int(din_op *op, const OrtKernelInfo *info, const char *name);
/* 0 or 1. */
int din_attribute_flag(din_op *op, const OrtKernelInfo *info, const char *name);
/* A finite number. */
float din_attribute_float(din_op *op, const OrtKernelInfo *info, const char *name);
void din_attribute_text(din_op *op, const OrtKernelInfo *info, const char *name,
                        char *out, size_t size);
/* A text of any length, ended by 0; freed by din_free. NULL when the op has failed. */
char *din_attribute_long_text(din_op *op, const OrtKernelInfo *info, const char *name,
                              size_t *size);
size_t din_attribute_ints(din_op *op, const OrtKernelInfo *info, const char *name,
                          int64_t *out, size_t count);
/* The place of an attribute's text in `names` (which ends with NULL). */
int din_attribute_choice(din_op *op, const OrtKernelInfo *info, const char *name,
                         const char *const *names);

din_tensor din_describe(din_op *op, const OrtValue *value, const char *name);
/* A constant of the graph; its memory lives as long as the kernel. */
din_tensor din_constant(din_op *op, const OrtKernelInfo *info, size_t index,
                        const char *name);
din_tensor din_input(din_op *op, const OrtKernelContext *context, size_t index,
                     const char *name);
/* An output, which the graph must take as this type. */
void *din_output(din_op *op, OrtKernelContext *context, size_t index, const char *name,
                 int type, const int64_t *dims, size_t rank);
/* Refuses another number of outputs: one that no kernel writes is no tensor, and what
   reads it in the runtime may not look. */
void din_expect_outputs(din_op *op, const OrtKernelInfo *info, size_t least,
                        size_t most);
/* Refuses another type, rank or size; a wanted size below 0 is any. */
void din_expect(din_op *op, const din_tensor *t, const char *name, int type,
                size_t rank, const int64_t *dims);
/* A copy of values, each in [0, stop); freed by din_free also when the op has failed.
   Inputs are their caller's memory, which another thread may write to meanwhile: what
   is checked and then used is read once. */
int64_t *din_copy_range(din_op *op, const int64_t *values, int64_t count, int64_t stop,
                        const char *name);
/* An embedding table, float or half, of at least one row. */
din_table din_expect_table(din_op *op, const din_tensor *t, const char *name);

/* Zeroed, 64-byte aligned, never NULL unless the op has failed; freed by din_free. */
void *din_allocate(din_op *op, int64_t count, size_t size);
void din_free(void *memory);

/* Scratch memory for as many threads as are at work at a time, kept between runs. */
typedef struct din_pool din_pool;
din_pool *din_pool_create(din_op *op, int64_t num_floats);
void din_pool_destroy(din_pool *pool);
float *din_pool_take(din_pool *pool); /* NULL when memory is out */
void din_pool_give(din_pool *pool, float *scratch);

/* Runs `work` over [0, total) in chunks of nearly equal cost on the runtime's threads.

   cost: of each item in some unit, or NULL: then all are alike, `even_cost` each.
   Chunks depend on the costs alone, never on the number of threads. The first chunk
   that returns a fault stops the others; that fault is returned. */
typedef struct din_work {
  int (*run)(const void *data, int64_t first, int64_t last, float *scratch,
             din_fault *fault);
  const void *data;
  int64_t total;
  int64_t (*cost)(const void *data, int64_t item);
  int64_t even_cost, chunk_cost;
  din_pool *pool;
} din_work;
int din_run(din_op *op, const OrtKernelContext *context, const din_work *work,
            din_fault *fault);

/* The instruction set that DIN_INFER_ISA names, or the machine's best. */
const din_isa *din_chosen_isa(din_op *op);

/* One kind of operator. */
typedef struct din_kind {
  void *(*create)(din_op *op, const OrtKernelInfo *info, int precision);
  void (*compute)(din_op *op, const void *kernel, OrtKernelContext *context);
  void (*destroy)(void *kernel);
} din_kind;

/* The device that a library's operators are for: provider_cpu.c or provider_cuda.c. */
typedef struct din_provider {
  const char *name; /* of the execution provider; NULL: the CPU's */
  /* NULL where models' functions serve */
  const din_kind *local_activation, *embedding_bag, *guard, *tower, *encode;
  const char *const *precisions; /* by din_precision; NULL: not here */
  /* Refuses what the machine cannot do. */
  void (*check)(din_op *op, din_precision precision);
} din_provider;
extern const din_provider DIN_PROVIDER;

#endif
