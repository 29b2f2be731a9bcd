#include <stdlib.h>

#include "op.h"

extern const din_kind din_local_activation, din_embedding_bag, din_guard_op,
    din_tower_op, din_encode_op;

const din_isa *din_chosen_isa(din_op *op) {
  const char *name = getenv("DIN_INFER_ISA");
  const din_isa *isa = din_find_isa(name);
  if (isa == NULL) {
    din_fail(op,
             "expected an instruction set of this machine (baseline, avx2, avx512),"
             " got %s - at `DIN_INFER_ISA`",
             name);
  }
  return isa;
}

static const char *const PRECISIONS[DIN_NUM_PRECISIONS] = {[DIN_FP32] = "fp32",
                                                           [DIN_BF16] = "bf16"};

static void check(din_op *op, din_precision precision) {
  din_chosen_isa(op);
  if (!din_failed(op) && precision == DIN_BF16 && din_find_half_isa() == NULL) {
    din_fail(op, "expected a CPU with AMX, got one without - at `din_infer.precision`");
  }
}

const din_provider DIN_PROVIDER = {.local_activation = &din_local_activation,
                                   .embedding_bag = &din_embedding_bag,
                                   .guard = &din_guard_op,
                                   .tower = &din_tower_op,
                                   .encode = &din_encode_op,
                                   .precisions = PRECISIONS,
                                   .check = check};
