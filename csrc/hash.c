#include "hash.h"

#include "hash_inline.h"

void din_prepare_reduction(int32_t kind, uint64_t num_buckets, din_reduction *out) {
  assert(kind == DIN_REDUCE_RAW || num_buckets > (kind == DIN_REDUCE_OFFSET ? 1u : 0u));
  out->kind = kind;
  out->divisor = kind == DIN_REDUCE_RAW ? 1 : num_buckets;
  if (kind == DIN_REDUCE_OFFSET) {
    out->divisor -= 1;
  }
  const uint64_t d = out->divisor;
  out->wrap = (UINT64_MAX % d + 1) % d;
  out->multiplier_low = 0;
  out->multiplier_high = 0;
#if defined(__SIZEOF_INT128__)
  /* d = 1 wraps to 0, which still gives the right remainder. */
  __extension__ typedef unsigned __int128 din_u128;
  const din_u128 multiplier = ~(din_u128)0 / d + 1;
  out->multiplier_low = (uint64_t)multiplier;
  out->multiplier_high = (uint64_t)(multiplier >> 64);
#endif
}

uint64_t din_hash_bytes(const uint8_t *key, int64_t num_bytes, uint64_t seed) {
  return din_hash_bytes_inline(key, num_bytes, seed);
}

uint64_t din_hash_int64(int64_t key, uint64_t seed) {
  return din_hash_int64_inline(key, seed);
}

uint64_t din_hash_int64_text(int64_t key, uint64_t seed) {
  return din_hash_int64_text_inline(key, seed);
}

int64_t din_reduce(uint64_t hash, const din_reduction *reduction) {
  return din_reduce_inline(hash, reduction);
}
