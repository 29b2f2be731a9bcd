/*
 * Hashes of keys, and their reduction to a bucket.
 *
 * The ids of trained tables depend on them, so they may never change. Nothing here
 * fails. Keys and integers are hashed by the block: block.h.
 *
 *   XXH64, XXH3   github.com/Cyan4973/xxHash, doc/xxhash_spec.md
 *   MurmurHash3   x86, 32 bits: Appleby 2011, public domain
 *   FarmHash      Fingerprint64: Pike, Alakuijala 2014, github.com/google/farmhash
 */
#ifndef DIN_HASH_H
#define DIN_HASH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  DIN_HASH_XXH64,
  DIN_HASH_XXH3_64,
  DIN_HASH_MURMUR3_32,  /* seeds below 2^32; hashes too */
  DIN_HASH_FARMHASH_64, /* reads no seed */
  DIN_NUM_HASHES,       /* of which each instruction set has functions */
  DIN_HASH_SIPHASH_24 = DIN_NUM_HASHES,
  DIN_HASH_MURMUR3_32_SPARK, /* seeds and hashes below 2^32 */
  DIN_HASH_MURMUR3_32_VW     /* seeds below 2^32 */
};

/* Whether its hashes, and so the seeds of further columns, are below 2^32. */
static inline int din_hash_has_32_bits(int32_t hash) {
  return hash == DIN_HASH_MURMUR3_32 || hash == DIN_HASH_MURMUR3_32_SPARK;
}

enum {
  DIN_REDUCE_OFFSET, /* 1 + h % (n - 1): bucket 0 stays free for padding */
  DIN_REDUCE_MOD,    /* h % n */
  DIN_REDUCE_PMOD,   /* the signed hash, of 64 or 32 bits, floored modulo n */
  DIN_REDUCE_ABS,    /* |low 32 bits as signed| % n */
  DIN_REDUCE_RAW     /* h itself */
};

/* Longest decimal text of 64 bits: a sign and 19 digits, or 20. */
enum { DIN_MAX_DIGITS = 20 };

/*
 * A prepared reduction: h % divisor without a division (Barrett).
 *
 * With multiplier = floor((2^64 - 1) / divisor), floor(h * multiplier / 2^64) is the
 * quotient or one less: 2^64 - multiplier * divisor lies in [1, divisor], so the two
 * differ by at most h / 2^64 < 1 before they are floored. One subtraction mends it.
 */
typedef struct {
  int32_t kind;
  int32_t is_signed32; /* pmod of a 32-bit hash */
  uint64_t divisor;    /* in [1, 2^63) */
  uint64_t multiplier;
  uint64_t wrap; /* 2^64 % divisor, what pmod takes off a negative hash */
} din_reduction;

/* @pre num_buckets in [1, 2^63), from 2 on for DIN_REDUCE_OFFSET; not read for RAW */
void din_prepare_reduction(int32_t kind, int32_t hash, uint64_t num_buckets,
                           din_reduction *out);

/* A key of any length by a hash behind DIN_NUM_HASHES; SipHash alone has two seeds. */
uint64_t din_hash_other(int32_t hash, const uint8_t *key, int64_t num_bytes,
                        uint64_t seed, uint64_t second_seed);

/* Write the decimal text at the end of `text`; return where it begins. */
int64_t din_format_int64(int64_t key, int is_unsigned, uint8_t text[DIN_MAX_DIGITS]);

#ifdef __cplusplus
}
#endif

#endif /* DIN_HASH_H */
