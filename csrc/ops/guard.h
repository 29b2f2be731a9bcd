/* What Guard reads of its graph and of a batch, for any device. */
#ifndef DIN_OPS_GUARD_H_
#define DIN_OPS_GUARD_H_

#include "op.h"

typedef struct din_guard {
  int64_t num_fields, num_user_fields;
  int has_requests;
  char *text;         /* the names of the fields, each ended by a zero */
  const char **names; /* [num_fields] */
  int64_t *rows;      /* [num_fields], of their tables */
} din_guard;

/* One batch: the memory of the ids is the runtime's, `ids` is [num_fields]. */
typedef struct din_guard_batch {
  int64_t num_candidates, num_requests;
  const int64_t *request_of_candidate;
  const int64_t **ids;
} din_guard_batch;

void din_guard_read(din_op *op, const OrtKernelInfo *info, din_guard *guard);
void din_guard_release(din_guard *guard);
void din_guard_read_batch(din_op *op, const OrtKernelContext *context,
                          const din_guard *guard, din_guard_batch *batch);

#endif
