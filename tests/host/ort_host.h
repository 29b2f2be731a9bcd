/* A host of the operators in place of ONNX Runtime: the functions of csrc/ops/ort_abi.h
   over plain memory, each tensor in a block of exactly its bytes, so that sanitizers see
   what is read beside it. For fuzz/operators.c and tests/host/threads.c.

   It answers as the runtime does, also where the operators ask for what is not there.
   What the runtime's loader would refuse before an operator sees it, callers leave out.
 */
#ifndef DIN_ORT_HOST_H
#define DIN_ORT_HOST_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/ops/ort_abi.h"

enum { HOST_MAX_INPUTS = 64, HOST_MAX_OUTPUTS = 4, HOST_MAX_ATTRIBUTES = 16 };
enum { HOST_MAX_RANK = 5, HOST_MAX_OPS = 64 };
/* Outputs of more bytes are refused, as when memory is out. */
#define HOST_MAX_BYTES ((int64_t)1 << 26)

struct OrtStatus {
  int code;
  char message[600];
};

struct OrtValue {
  int type;
  size_t rank;
  int64_t dims[HOST_MAX_RANK];
  void *data; /* of host_bytes(..); of texts, which end with zeros: the first of them */
  size_t text_bytes;
};

struct OrtTensorInfo {
  OrtValue of;
};

typedef struct host_attribute {
  const char *name;
  enum { HOST_INT, HOST_FLOAT, HOST_TEXT, HOST_INTS } kind;
  int64_t whole;
  float number;
  const char *text; /* `size` bytes, and no zero behind them */
  const int64_t *ints;
  size_t size;
} host_attribute;

struct OrtKernelInfo {
  host_attribute attributes[HOST_MAX_ATTRIBUTES];
  size_t num_attributes;
  const OrtValue *constants[HOST_MAX_INPUTS]; /* NULL: computed, or none */
  size_t num_inputs, num_outputs;
};

struct OrtKernelContext {
  const OrtValue *inputs[HOST_MAX_INPUTS]; /* NULL: none */
  size_t num_inputs, num_outputs;
  int output_types[HOST_MAX_OUTPUTS]; /* as the graph says; 0: the graph takes none */
  OrtValue outputs[HOST_MAX_OUTPUTS];
  int num_threads; /* 1: ParallelFor runs here */
};

struct OrtCustomOpDomain {
  const OrtCustomOp *ops[HOST_MAX_OPS];
  size_t count;
};

struct OrtSessionOptions {
  const char *precision; /* or NULL */
  OrtCustomOpDomain *domain;
};

static int64_t host_size(int type) {
  return type == ORT_FLOAT || type == ORT_INT32    ? 4
         : type == ORT_INT64 || type == ORT_DOUBLE ? 8
         : type == ORT_FLOAT16                     ? 2
                                                   : 1;
}

static int64_t host_count(const OrtValue *v) {
  int64_t count = 1;
  for (size_t i = 0; i < v->rank; i++) {
    if (v->dims[i] == 0) return 0;
  }
  for (size_t i = 0; i < v->rank; i++) {
    if (v->dims[i] < 0 || __builtin_mul_overflow(count, v->dims[i], &count)) return -1;
  }
  return count;
}

/* Bytes of a tensor; -1 where no memory holds them. */
static int64_t host_bytes(const OrtValue *v) {
  int64_t count = host_count(v), bytes;
  if (count < 0 || __builtin_mul_overflow(count, host_size(v->type), &bytes)) return -1;
  return bytes;
}

static void *host_allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL && bytes) abort();
  return memory;
}

static OrtStatus *ORT_CALL host_status(int code, const char *message) {
  OrtStatus *status = host_allocate(sizeof *status);
  status->code = code;
  snprintf(status->message, sizeof status->message, "%s", message);
  return status;
}
static const char *ORT_CALL host_message(const OrtStatus *status) {
  return status->message;
}
static void ORT_CALL host_release_status(OrtStatus *status) { free(status); }

static OrtStatus *ORT_CALL host_create_domain(const char *name,
                                              OrtCustomOpDomain **out) {
  (void)name;
  *out = host_allocate(sizeof **out);
  (*out)->count = 0;
  return NULL;
}
static OrtStatus *ORT_CALL host_add_op(OrtCustomOpDomain *domain,
                                       const OrtCustomOp *op) {
  if (domain->count == HOST_MAX_OPS) return host_status(1, "too many operators");
  domain->ops[domain->count++] = op;
  return NULL;
}
static OrtStatus *ORT_CALL host_add_domain(OrtSessionOptions *options,
                                           OrtCustomOpDomain *domain) {
  options->domain = domain;
  return NULL;
}
static void ORT_CALL host_release_domain(OrtCustomOpDomain *domain) { free(domain); }

static OrtStatus *ORT_CALL host_has_entry(const OrtSessionOptions *options,
                                          const char *key, int *out) {
  (void)key;
  *out = options->precision != NULL;
  return NULL;
}
static OrtStatus *host_copy_text(const char *text, size_t length, char *out,
                                 size_t *size) {
  size_t room = *size;
  *size = length + 1;
  if (out == NULL) return NULL;
  if (room < *size) return host_status(1, "the buffer is too small");
  if (length) memcpy(out, text, length);
  out[length] = '\0';
  return NULL;
}
static OrtStatus *ORT_CALL host_get_entry(const OrtSessionOptions *options,
                                          const char *key, char *out, size_t *size) {
  (void)key;
  return host_copy_text(options->precision, strlen(options->precision), out, size);
}

/* ---- tensors ---- */

static OrtStatus *ORT_CALL host_shape(const OrtValue *value, OrtTensorInfo **out) {
  *out = host_allocate(sizeof **out);
  (*out)->of = *value;
  return NULL;
}
static void ORT_CALL host_release_info(OrtTensorInfo *info) { free(info); }
static OrtStatus *ORT_CALL host_type(const OrtTensorInfo *info, int *out) {
  *out = info->of.type;
  return NULL;
}
static OrtStatus *ORT_CALL host_rank(const OrtTensorInfo *info, size_t *out) {
  *out = info->of.rank;
  return NULL;
}
static OrtStatus *ORT_CALL host_dims(const OrtTensorInfo *info, int64_t *dims,
                                     size_t count) {
  for (size_t i = 0; i < count && i < info->of.rank; i++) dims[i] = info->of.dims[i];
  return NULL;
}
static OrtStatus *ORT_CALL host_data(OrtValue *value, void **out) {
  *out = value->data;
  return NULL;
}
static OrtStatus *ORT_CALL host_text_size(const OrtValue *value, size_t *size) {
  if (value->type != ORT_STRING) return host_status(1, "the tensor holds no texts");
  *size = value->text_bytes - (size_t)host_count(value);
  return NULL;
}
static OrtStatus *ORT_CALL host_texts(const OrtValue *value, void *out, size_t size,
                                      size_t *offsets, size_t count) {
  const char *at = value->data;
  size_t used = 0;
  if (value->type != ORT_STRING) return host_status(1, "the tensor holds no texts");
  if ((int64_t)count < host_count(value)) return host_status(1, "too few offsets");
  for (size_t i = 0; i < count; i++, at += strlen(at) + 1) {
    if (used + strlen(at) > size) return host_status(1, "the buffer is too small");
    offsets[i] = used;
    memcpy((char *)out + used, at, strlen(at));
    used += strlen(at);
  }
  return NULL;
}

/* ---- kernels ---- */

static const host_attribute *host_find(const OrtKernelInfo *info, const char *name,
                                       int kind) {
  for (size_t i = 0; i < info->num_attributes; i++) {
    const host_attribute *a = &info->attributes[i];
    if (strcmp(a->name, name) == 0) return (int)a->kind == kind ? a : NULL;
  }
  return NULL;
}
static OrtStatus *ORT_CALL host_float(const OrtKernelInfo *info, const char *name,
                                      float *out) {
  const host_attribute *a = host_find(info, name, HOST_FLOAT);
  if (a == NULL) return host_status(1, "no such attribute of floats");
  *out = a->number;
  return NULL;
}
static OrtStatus *ORT_CALL host_int(const OrtKernelInfo *info, const char *name,
                                    int64_t *out) {
  const host_attribute *a = host_find(info, name, HOST_INT);
  if (a == NULL) return host_status(1, "no such attribute of integers");
  *out = a->whole;
  return NULL;
}
static OrtStatus *ORT_CALL host_text(const OrtKernelInfo *info, const char *name,
                                     char *out, size_t *size) {
  const host_attribute *a = host_find(info, name, HOST_TEXT);
  if (a == NULL) return host_status(1, "no such attribute of text");
  return host_copy_text(a->text, a->size, out, size);
}
static OrtStatus *ORT_CALL host_ints(const OrtKernelInfo *info, const char *name,
                                     int64_t *out, size_t *size) {
  const host_attribute *a = host_find(info, name, HOST_INTS);
  size_t room = *size;
  if (a == NULL) return host_status(1, "no such attribute of a list of integers");
  *size = a->size;
  if (out == NULL) return NULL;
  if (room < a->size) return host_status(1, "the buffer is too small");
  if (a->size) memcpy(out, a->ints, a->size * sizeof *out);
  return NULL;
}
static OrtStatus *ORT_CALL host_num_inputs(const OrtKernelInfo *info, size_t *out) {
  *out = info->num_inputs;
  return NULL;
}
static OrtStatus *ORT_CALL host_num_outputs(const OrtKernelInfo *info, size_t *out) {
  *out = info->num_outputs;
  return NULL;
}
static OrtStatus *ORT_CALL host_constant(const OrtKernelInfo *info, size_t index,
                                         int *is_constant, const OrtValue **out) {
  *out = index < info->num_inputs ? info->constants[index] : NULL;
  *is_constant = *out != NULL;
  return NULL;
}
static OrtStatus *ORT_CALL host_input(const OrtKernelContext *context, size_t index,
                                      const OrtValue **out) {
  *out = index < context->num_inputs ? context->inputs[index] : NULL;
  return NULL;
}
static OrtStatus *ORT_CALL host_output(OrtKernelContext *context, size_t index,
                                       const int64_t *dims, size_t count,
                                       OrtValue **out) {
  *out = NULL;
  if (index >= context->num_outputs || count > HOST_MAX_RANK) {
    return host_status(1, "no such output");
  }
  if (context->output_types[index] == 0) return NULL;
  OrtValue made = {.type = context->output_types[index], .rank = count};
  for (size_t i = 0; i < count; i++) made.dims[i] = dims[i];
  int64_t bytes = host_bytes(&made);
  if (bytes < 0 || bytes > HOST_MAX_BYTES) return host_status(1, "no memory for it");
  free(context->outputs[index].data);
  made.data = host_allocate((size_t)bytes);
  context->outputs[index] = made;
  *out = &context->outputs[index];
  return NULL;
}

typedef struct host_share {
  void (*run)(void *data, size_t index);
  void *data;
  size_t first, step, total;
} host_share;

static void *host_run_share(void *argument) {
  const host_share *s = argument;
  for (size_t i = s->first; i < s->total; i += s->step) s->run(s->data, i);
  return NULL;
}
static OrtStatus *ORT_CALL host_parallel(const OrtKernelContext *context,
                                         void (*run)(void *data, size_t index),
                                         size_t total, size_t num_batches, void *data) {
  enum { MOST = 16 };
  pthread_t threads[MOST];
  host_share shares[MOST];
  const size_t count =
      context->num_threads < MOST ? (size_t)context->num_threads : MOST;
  (void)num_batches;
  for (size_t i = 0; i < count; i++) {
    shares[i] = (host_share){run, data, i, count, total};
    if (i > 0 && pthread_create(&threads[i], NULL, host_run_share, &shares[i])) abort();
  }
  host_run_share(&shares[0]);
  for (size_t i = 1; i < count; i++) pthread_join(threads[i], NULL);
  return NULL;
}

static const OrtApi HOST_API = {
    .CreateStatus = host_status,
    .GetErrorMessage = host_message,
    .CreateCustomOpDomain = host_create_domain,
    .CustomOpDomain_Add = host_add_op,
    .AddCustomOpDomain = host_add_domain,
    .GetTensorMutableData = host_data,
    .GetStringTensorDataLength = host_text_size,
    .GetStringTensorContent = host_texts,
    .GetTensorElementType = host_type,
    .GetDimensionsCount = host_rank,
    .GetDimensions = host_dims,
    .GetTensorTypeAndShape = host_shape,
    .KernelInfoGetAttribute_float = host_float,
    .KernelInfoGetAttribute_int64 = host_int,
    .KernelInfoGetAttribute_string = host_text,
    .KernelContext_GetInput = host_input,
    .KernelContext_GetOutput = host_output,
    .ReleaseStatus = host_release_status,
    .ReleaseTensorTypeAndShapeInfo = host_release_info,
    .ReleaseCustomOpDomain = host_release_domain,
    .KernelInfoGetAttributeArray_int64 = host_ints,
    .KernelInfo_GetInputCount = host_num_inputs,
    .KernelInfo_GetOutputCount = host_num_outputs,
    .HasSessionConfigEntry = host_has_entry,
    .GetSessionConfigEntry = host_get_entry,
    .KernelInfoGetConstantInput_tensor = host_constant,
    .KernelContext_ParallelFor = host_parallel,
};

static const OrtApi *ORT_CALL host_api(uint32_t version) {
  return version == ORT_API_VERSION ? &HOST_API : NULL;
}
static const char *ORT_CALL host_version(void) { return "host"; }
static const OrtApiBase HOST_BASE = {host_api, host_version};

OrtStatus *ORT_CALL RegisterCustomOps(OrtSessionOptions *options,
                                      const OrtApiBase *base);

/* The operator of a name, in a precision; NULL where this machine has none. */
static const OrtCustomOp *host_operator(const char *name, const char *precision) {
  OrtSessionOptions options = {precision, NULL};
  OrtStatus *status = RegisterCustomOps(&options, &HOST_BASE);
  if (status != NULL) {
    host_release_status(status);
    return NULL;
  }
  for (size_t i = 0; i < options.domain->count; i++) {
    const OrtCustomOp *op = options.domain->ops[i];
    if (strcmp(op->GetName(op), name) == 0) return op;
  }
  abort();
}

/* Every sentence is `expected .., got .. - at `..``, in UTF-8. */
static void host_check_status(const OrtStatus *status) {
  if (status == NULL) return;
  if (strncmp(status->message, "expected ", 9) &&
      strcmp(status->message, "no memory for it") &&
      strcmp(status->message, "no such output") &&
      strstr(status->message, "expected") == NULL) {
    fprintf(stderr, "a sentence of another form: %s\n", status->message);
    abort();
  }
}

#endif
