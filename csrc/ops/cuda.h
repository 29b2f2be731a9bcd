/* What the operators' C code asks of CUDA: attention.cu, bag.cu, guard.cu. Letters as
   in isa.h. Every function returns NULL, or what went wrong, from static memory. */
#ifndef DIN_OPS_CUDA_H_
#define DIN_OPS_CUDA_H_

#include "isa.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A refusal of a model that the kernels cannot hold, and its functions can: a code that
   din_infer/session.py looks for. */
#define DIN_TOO_WIDE(sentence) "din_infer.too_wide[" sentence "]"

#define DIN_MAX_FIELDS 24 /* behavior fields, and slots of a query */

/* One LocalActivation on one device. */
typedef struct din_cuda_attention din_cuda_attention;

/* A history may be padded, ids [B, T] and lengths [B]; or packed: ids [1, V], those of
   request b at [offsets[b], offsets[b + 1]), and `lengths` is the offsets [B + 1]. */
typedef struct din_cuda_batch {
  int64_t num_candidates, num_requests;
  int64_t num_positions; /* T, or V when packed */
  int packed;
  const int64_t *request_of_candidate;
  const int64_t *lengths; /* or NULL: by `mask` [B, T] of 0 and 1 */
  const float *mask;
  const int64_t *ids[DIN_MAX_FIELDS];           /* per behavior field */
  const int64_t *candidate_ids[DIN_MAX_FIELDS]; /* per candidate field */
  din_table tables[DIN_MAX_FIELDS], candidate_tables[DIN_MAX_FIELDS];
  float *interest; /* [N, D] */
  float *weight;   /* [N, T], or NULL; never of a packed batch */
} din_cuda_batch;

/* Copies to this memory from wherever `from` lies. */
const char *din_cuda_fetch(void *to, const void *from, size_t bytes);

/* Packs the weights of `attention`, whose matrices are [in, units rounded up to 8], and
   copies them to the current device. */
const char *din_cuda_attention_create(const din_attention *attention,
                                      din_precision precision,
                                      din_cuda_attention **out);
void din_cuda_attention_destroy(din_cuda_attention *attention);

/* One launch on `stream`. Nothing is read outside the tensors: a candidate whose
   request, length or id is out of range, or whose mask is neither 0 nor 1, has NaN. */
const char *din_cuda_attend(const din_cuda_attention *attention,
                            const din_cuda_batch *batch, void *stream);

#define DIN_MAX_GUARDED 96 /* fields of a Guard: a kernel's arguments are 4 KiB */

/* One Guard. `num_requests` is -1 where nothing is per request; of the ids, the first
   `num_user_fields` are [B], the others [N]. */
typedef struct din_cuda_guard {
  int64_t num_candidates, num_requests;
  int num_fields, num_user_fields;
  const int64_t *request_of_candidate;
  const int64_t *ids[DIN_MAX_GUARDED];
  int64_t rows[DIN_MAX_GUARDED];
  float *penalty; /* [N]: 0, or NaN */
} din_cuda_guard;
const char *din_cuda_check(const din_cuda_guard *guard, void *stream);

/* As din_bag_batch, on the device; packed as in din_cuda_batch. */
const char *din_cuda_bag(const din_bag_batch *batch, int packed, void *stream);

#ifdef __cplusplus
}
#endif
#endif
