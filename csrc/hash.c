#include "hash.h"

#include <assert.h>

void din_prepare_reduction(int32_t kind, int32_t hash, uint64_t num_buckets,
                           din_reduction *out) {
  assert(kind == DIN_REDUCE_RAW || num_buckets > (kind == DIN_REDUCE_OFFSET ? 1u : 0u));
  assert(num_buckets <= (uint64_t)1 << 63 || kind == DIN_REDUCE_RAW);
  const uint64_t d = kind == DIN_REDUCE_RAW      ? 1
                     : kind == DIN_REDUCE_OFFSET ? num_buckets - 1
                                                 : num_buckets;
  out->kind = kind;
  out->is_signed32 = kind == DIN_REDUCE_PMOD && din_hash_has_32_bits(hash);
  out->divisor = d;
  out->multiplier = UINT64_MAX / d;
  out->wrap = (UINT64_MAX % d + 1) % d;
}

int64_t din_format_int64(int64_t key, int is_unsigned, uint8_t text[DIN_MAX_DIGITS]) {
  const int is_negative = key < 0 && !is_unsigned;
  uint64_t left = is_negative ? 0 - (uint64_t)key : (uint64_t)key;
  int64_t at = DIN_MAX_DIGITS;
  do {
    text[--at] = (uint8_t)('0' + left % 10);
    left /= 10;
  } while (left > 0);
  if (is_negative) {
    text[--at] = '-';
  }
  return at;
}
