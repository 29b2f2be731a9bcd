/* Reads LocalActivation from a kernel's attributes and constants, for any device; what
   the operator is stands in local_activation.c. */
#ifndef DIN_OPS_ATTENTION_H_
#define DIN_OPS_ATTENTION_H_

#include "layers.h"

/* Rows of a table that the graph computes: known in a run. */
#define DIN_COMPUTED (-1)

/* What does not change from run to run. */
typedef struct din_attention_op {
  const din_isa *isa;
  din_attention attention;
  int explains, masks; /* masks: by a mask [B, T], not by lengths */
  int64_t *slots;
  /* of the tables, then the candidate tables; num_rows is DIN_COMPUTED, and rows is
     NULL, where the table is no constant */
  din_table *shapes;
  din_kept kept;
} din_attention_op;

/* Reads and checks all; `isa` packs the weights, `fetch` as in din_reader. What it has
   read when the op fails is for din_attention_release, too. */
void din_attention_read(din_op *op, const OrtKernelInfo *info, const din_isa *isa,
                        din_fetch fetch, din_attention_op *out);
void din_attention_release(din_attention_op *k);
/* Inputs `label`_0 .. of a run, from input `first` on, each int64 of these dims. */
void din_read_ids(din_op *op, const OrtKernelContext *context, const char *label,
                  size_t first, int64_t count, size_t rank, const int64_t *dims,
                  const int64_t **out);

#endif
