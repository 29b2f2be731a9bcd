/* Reads the layers of a multi-layer perceptron from a kernel's constant inputs, in the
   order in which din-convert writes them: per layer l from 1 its weight_l [in, H],
   bias_l [H] and the parameters of its activation, [H] each. */
#ifndef DIN_OPS_LAYERS_H_
#define DIN_OPS_LAYERS_H_

#include "op.h"

/* Packed arrays of a kernel, freed together. */
typedef struct din_kept {
  void **memory;
  int64_t count, limit;
} din_kept;
void din_release(din_kept *kept);

/* Copies a constant to `to` from where the runtime keeps it, which may be a device. */
typedef void (*din_fetch)(din_op *op, float *to, const void *from, int64_t count);

/* Constants one after the other, each shape checked. */
typedef struct din_reader {
  din_op *op;
  const OrtKernelInfo *info;
  const din_isa *isa;
  din_kept *kept;
  size_t next;
  din_fetch fetch; /* NULL: they are in this memory */
} din_reader;

extern const char *const DIN_ACTIVATIONS[]; /* in the order of din_activation */

/* Zeroed floats that live as long as the kernel; NULL when the op has failed. */
float *din_keep(din_reader *r, int64_t count);
/* The next constant: [columns], or [rows, columns] for rank 2; not the caller's. */
const float *din_read_floats(din_reader *r, const char *name, size_t rank, int64_t rows,
                             int64_t columns);
/* The next constant, packed. */
const float *din_read_matrix(din_reader *r, const char *name, int64_t in, int64_t out);
/* How many columns the next constant has, at least 1; does not pass over it. */
int64_t din_read_width(din_reader *r, const char *name);
/* The attribute num_layers, at least 1. */
int64_t din_read_depth(din_op *op, const OrtKernelInfo *info, size_t num_inputs);
/* All layers, the one to a single unit last. m->activation is set; `first` is the packed
   weight of layer 1 [in, units] where that has another name, or NULL. */
void din_read_layers(din_reader *r, din_mlp *m, int64_t num_hidden, int64_t in,
                     const float *first, int64_t units);
/* Refuses inputs behind the last that was read. */
void din_read_end(din_reader *r, size_t num_inputs);

#endif
