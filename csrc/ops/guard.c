/* Guard as an operator of ONNX Runtime: refuses what no other operator checks.

   Inputs: request_of_candidate [N] int64; two tensors that tell B, which may be one;
   ids of fields per request, [B] int64 each, then per candidate, [N] each. Output:
   penalty [N], zeros. Attributes: fields, a line for each: rows of its table, a space,
   its name; num_user_fields, those per request; has_requests, 0 where nothing is.
*/
#include "guard.h"

#include <stdlib.h>
#include <string.h>

#define NUM_LEADING 3 /* inputs before the fields */

void din_guard_read(din_op *op, const OrtKernelInfo *info, din_guard *guard) {
  size_t num_inputs = 0, size = 0;
  guard->num_user_fields = din_attribute_int(op, info, "num_user_fields");
  guard->has_requests = din_attribute_flag(op, info, "has_requests");
  guard->text = din_attribute_long_text(op, info, "fields", &size);
  din_expect_outputs(op, info, 1, 1);
  if (!din_failed(op)) {
    din_check(op, op->api->KernelInfo_GetInputCount(info, &num_inputs));
  }
  if (din_failed(op)) return;
  int64_t count = 0;
  for (const char *at = guard->text; *at;) {
    const char *end = strchr(at, '\n');
    at = end ? end + 1 : at + strlen(at);
    count++;
  }
  guard->num_fields = count;
  if (guard->num_user_fields < 0 || guard->num_user_fields > count ||
      (guard->num_user_fields > 0 && !guard->has_requests) ||
      num_inputs != NUM_LEADING + (size_t)count) {
    din_fail(op, "expected attributes that fit %zu inputs, got %lld fields - at `%s`",
             num_inputs, (long long)count, op->name);
  }
  guard->names = din_allocate(op, count, sizeof *guard->names);
  guard->rows = din_allocate(op, count, sizeof *guard->rows);
  char *at = guard->text;
  for (int64_t i = 0; i < count && !din_failed(op); i++) {
    char *name = NULL, *end = strchr(at, '\n');
    if (end) *end = '\0';
    guard->rows[i] = strtoll(at, &name, 10);
    if (guard->rows[i] < 1 || *name != ' ') {
      din_fail(op, "expected rows and a name, got %.100s - at `%s attribute fields`",
               at, op->name);
    }
    guard->names[i] = name + 1;
    at = end ? end + 1 : at;
  }
}

void din_guard_release(din_guard *guard) {
  din_free(guard->text);
  din_free(guard->names);
  din_free(guard->rows);
}

/* B, where histories may be packed (cuda.h): ids [1, V], and offsets [B + 1]. */
static int64_t count_requests(din_op *op, const OrtKernelContext *context) {
  din_tensor requests = din_input(op, context, 1, "requests");
  din_tensor rows = din_input(op, context, 2, "rows");
  if (!din_failed(op) && (requests.rank == 0 || rows.rank == 0)) {
    din_fail(op, "expected a value for each request, got one - at `%s`", op->name);
  }
  if (din_failed(op)) return 0;
  int64_t count = requests.dims[0];
  return rows.dims[0] == 1 && count > 1 ? count - 1 : count;
}

void din_guard_read_batch(din_op *op, const OrtKernelContext *context,
                          const din_guard *guard, din_guard_batch *batch) {
  const int64_t any[1] = {-1};
  din_tensor request = din_input(op, context, 0, "request_of_candidate");
  din_expect(op, &request, "request_of_candidate", ORT_INT64, 1, any);
  batch->num_candidates = request.dims[0];
  batch->request_of_candidate = request.data;
  if (guard->has_requests) batch->num_requests = count_requests(op, context);
  for (int64_t i = 0; i < guard->num_fields && !din_failed(op); i++) {
    int64_t *size =
        i < guard->num_user_fields ? &batch->num_requests : &batch->num_candidates;
    din_tensor t = din_input(op, context, NUM_LEADING + (size_t)i, guard->names[i]);
    din_expect(op, &t, guard->names[i], ORT_INT64, 1, size);
    batch->ids[i] = t.data;
  }
}

/* ---- the CPU ---- */

static int is_outside(int64_t value, int64_t stop) {
  return (uint64_t)value >= (uint64_t)stop;
}

static void refuse(din_op *op, const din_guard *guard, const din_guard_batch *b,
                   int64_t field, int64_t at) {
  din_fail(op, "expected an id in [0, %lld), got %lld - at `%s[%lld]`",
           (long long)guard->rows[field], (long long)b->ids[field][at],
           guard->names[field], (long long)at);
}

static void check_requests(din_op *op, const din_guard *guard,
                           const din_guard_batch *b) {
  int64_t highest = -1, before = -1;
  for (int64_t n = 0; n < b->num_candidates; n++) {
    int64_t request = din_read_once(&b->request_of_candidate[n]);
    if (is_outside(request, b->num_requests)) {
      din_fail(op,
               "expected a request in [0, %lld), got %lld - at"
               " `request_of_candidate[%lld]`",
               (long long)b->num_requests, (long long)request, (long long)n);
      return;
    }
    if (request == before) continue;
    before = request;
    if (request > highest) highest = request;
    for (int64_t i = 0; i < guard->num_user_fields; i++) {
      if (is_outside(b->ids[i][request], guard->rows[i])) {
        refuse(op, guard, b, i, request);
        return;
      }
    }
  }
  if (b->num_candidates && highest != b->num_requests - 1) {
    din_fail(op,
             "expected a candidate of request %lld, the last, got requests up to"
             " %lld - at `request_of_candidate`. Calls cannot be joined on their"
             " first axis: configure the server not to batch.",
             (long long)(b->num_requests - 1), (long long)highest);
  }
}

static void check_candidates(din_op *op, const din_guard *guard,
                             const din_guard_batch *b) {
  for (int64_t i = guard->num_user_fields; i < guard->num_fields; i++) {
    const int64_t *ids = b->ids[i];
    int64_t count = b->num_candidates, rows = guard->rows[i];
    uint64_t wrong = 0, last = (uint64_t)rows - 1;
    for (int64_t n = 0; n < count; n++) {
      wrong |= (uint64_t)ids[n] | (last - (uint64_t)ids[n]);
    }
    if (wrong >> 63 == 0) continue; /* no sign bit: all in [0, rows) */
    for (int64_t n = 0; n < count && !din_failed(op); n++) {
      if (is_outside(ids[n], rows)) refuse(op, guard, b, i, n);
    }
  }
}

static void destroy(void *data) {
  if (data) din_guard_release(data);
  din_free(data);
}

static void *create(din_op *op, const OrtKernelInfo *info, int precision) {
  din_guard *guard = din_allocate(op, 1, sizeof *guard);
  (void)precision;
  if (guard) din_guard_read(op, info, guard);
  if (din_failed(op)) {
    destroy(guard);
    return NULL;
  }
  return guard;
}

static void compute(din_op *op, const void *data, OrtKernelContext *context) {
  const din_guard *guard = data;
  din_guard_batch b = {.ids = din_allocate(op, guard->num_fields, sizeof *b.ids)};
  if (b.ids) din_guard_read_batch(op, context, guard, &b);
  if (!din_failed(op) && guard->has_requests) check_requests(op, guard, &b);
  if (!din_failed(op)) check_candidates(op, guard, &b);
  float *penalty =
      din_output(op, context, 0, "penalty", ORT_FLOAT, &b.num_candidates, 1);
  if (penalty) memset(penalty, 0, (size_t)b.num_candidates * sizeof *penalty);
  din_free(b.ids);
}

const din_kind din_guard_op = {create, compute, destroy};
