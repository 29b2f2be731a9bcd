/* What the operators compute with: packed weights, batches, and one table of kernels
   for each instruction set.

   Letters: N candidates, B requests, T positions, D width of a behavior, H hidden
   units, W floats per vector of the instruction set, S strips = ceil(H / W).

   A weight matrix [in, out] is packed by the instruction set's `pack` into S * in * W
   floats: S strips of W columns, zeros behind the last, in the order in which it is
   read. Vectors of H units are padded with zeros to S * W. All packed arrays are
   64-byte aligned.

   Nothing here allocates, and only ids are checked: whoever fills these structures has
   checked the rest, and holds requests and lengths where nobody else writes. */
#ifndef DIN_OPS_ISA_H_
#define DIN_OPS_ISA_H_

#include <stddef.h>
#include <stdint.h>

typedef enum din_activation {
  DIN_NONE,
  DIN_RELU,
  DIN_SIGMOID,
  DIN_SILU,
  DIN_PRELU,
  DIN_DICE,
  DIN_ROW_DICE,
} din_activation;

/* What LocalActivation multiplies in. On CUDA: fp32 on its cores; on tensor cores bf16;
   tf32, 11 bits of each factor; or three products of such parts, 22 bits. */
typedef enum din_precision {
  DIN_FP32,
  DIN_BF16,
  DIN_TF32,
  DIN_TF32X3,
  DIN_NUM_PRECISIONS
} din_precision;

typedef enum din_pooling { DIN_SUM, DIN_MEAN, DIN_MAX } din_pooling;

/* An embedding table: [num_rows, dim], float, or IEEE half where `is_half`. */
typedef struct din_table {
  const void *rows;
  int64_t num_rows, dim;
  int is_half;
} din_table;

/* One layer: x -> activation(x . weight + bias). The vectors p[] by activation:
   Dice: -scale*log2(e), -shift*log2(e), alpha, 1 - alpha; PReLU: slope;
   row-wise Dice: alpha, 1 - alpha, and 1 for real units (0 for padding). */
typedef struct din_layer {
  int64_t in, out, strips;
  const float *weight;
  const float *bias;
  const float *p[4];
  const uint16_t *half_weight; /* bf16, from pack_half, or NULL */
} din_layer;

/* Hidden layers, then a layer to one unit: x . dot + dot_bias. Without hidden layers,
   layers[0] has one unit and no activation, and `dot` is 1. */
typedef struct din_mlp {
  int64_t num_layers;
  const din_layer *layers;
  int64_t max_padded_units; /* of the widest layer */
  din_activation activation;
  float epsilon;
  const float *dot; /* [S * W] of the last hidden layer */
  float dot_bias;
} din_mlp;

/* One LocalActivation: everything that does not change from run to run. */
typedef struct din_attention {
  int64_t num_fields, num_slots, num_candidate_fields;
  const int64_t
      *slots; /* per slot of the query: a candidate field, or -width (zeros) */
  int64_t width, padded_width; /* D, and D rounded up to W */
  din_mlp mlp;                 /* its first weight is weight_behavior */
  const float *weight_query;   /* packed [D, H] */
  const float *weight_product; /* packed [D, H], or NULL */
  const float *weight_outer;   /* D packed [D, H], one per value of q; or NULL */
  float scale;
  din_activation output_activation;
  int softmax, attended, padding_row;
} din_attention;

typedef struct din_attention_batch {
  int64_t num_candidates, num_requests, num_positions;
  const int64_t *request_of_candidate; /* [N], in [0, B) */
  const int64_t *lengths;              /* [B], in [0, T]; not read where T is 0 */
  const int64_t *const *ids;           /* per behavior field: [B, T] */
  const int64_t *const *candidate_ids; /* per candidate field: [N] */
  const din_table *tables, *candidate_tables;
  float *interest; /* [N, D] */
  float *weight;   /* [N, T], or NULL */
} din_attention_batch;

/* Behaviors of a candidate. */
static inline int64_t din_length_of(const din_attention *a,
                                    const din_attention_batch *b, int64_t candidate) {
  if (a->attended || b->num_positions == 0) return b->num_positions;
  return b->lengths[b->request_of_candidate[candidate]];
}

typedef struct din_bag_batch {
  int64_t num_rows, num_positions;
  const int64_t *ids;     /* [rows, T] */
  const int64_t *lengths; /* [rows], in [0, T] */
  din_table table;
  din_pooling pooling;
  int attended;
  float empty;
  float *pooled; /* [rows, D] */
} din_bag_batch;

/* One Tower: x_0 .. x_{I-1}, side by side, through the layers. */
typedef struct din_tower {
  int64_t num_blocks, width; /* I, and the widths in all */
  const int64_t *widths;     /* [I] */
  din_mlp mlp;
} din_tower;

typedef struct din_tower_batch {
  int64_t num_rows;
  const float *const *x; /* per block: [rows, its width] */
  float *logit;          /* [rows] */
} din_tower_batch;

/* An id outside its table: which field, and where it stands. */
typedef struct din_fault {
  int is_candidate;
  int64_t field, row, position, id, num_rows;
} din_fault;

typedef struct din_isa {
  const char *name;
  int64_t width; /* W */
  /* Packs [in, out], row major, into S * in * W floats. */
  void (*pack)(const float *src, int64_t in, int64_t out, float *dst);
  /* NULL, or attend() multiplies in bf16: packs a packed weight [in, S * W] again, for
     din_layer.half_weight. Product and query may be NULL. */
  void (*pack_half)(const float *weight, const float *product, const float *query,
                    int64_t in, int64_t strips, uint16_t *dst);
  /* Scores candidates [first, last); returns 0, or 1 and the fault.
     @pre scratch: din_attention_scratch(attention, W) floats, 64-byte aligned. */
  int (*attend)(const din_attention *attention, const din_attention_batch *batch,
                int64_t first, int64_t last, float *scratch, din_fault *fault);
  /* Pools rows [first, last).
     @pre scratch: din_bag_scratch(dim, W) floats, 64-byte aligned. */
  int (*bag)(const din_bag_batch *batch, int64_t first, int64_t last, float *scratch,
             din_fault *fault);
  /* Rows [first, last) of a tower.
     @pre scratch: din_tower_scratch(tower, W) floats, 64-byte aligned. */
  void (*tower)(const din_tower *tower, const din_tower_batch *batch, int64_t first,
                int64_t last, float *scratch);
} din_isa;

/* Rows of behaviors that are kept when read from the tables, and that go through the
   layers at a time. */
#define DIN_OPS_BLOCK 256
#define DIN_TILE 64
/* Candidates whose queries go through the first layer at a time. */
#define DIN_GROUP 32

/* Reads an id of a batch, once: another thread may write there, so that a value that is
   read again for its use may be another than the one that was checked. */
static inline int64_t din_read_once(const int64_t *id) {
  return __atomic_load_n(id, __ATOMIC_RELAXED);
}

static inline int64_t din_round_up(int64_t n, int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

/* Floats of scratch memory per thread: O(D * H). */
int64_t din_attention_scratch(const din_attention *attention, int64_t width);
/* bf16 values that pack_half writes. */
static inline int64_t din_half_size(int64_t in, int64_t strips, int64_t width) {
  return din_round_up(in, 32) * strips * width;
}
int64_t din_bag_scratch(int64_t dim, int64_t width);
int64_t din_tower_scratch(const din_tower *tower, int64_t width);

/* The best instruction set of this machine, or the one named; NULL when it is unknown
   or the machine lacks it. `name` may be NULL or empty. */
const din_isa *din_find_isa(const char *name);

/* The one that multiplies in bf16; NULL when the machine has no AMX, or the system does
   not let this process use it. */
const din_isa *din_find_half_isa(void);

#endif
