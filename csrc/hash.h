/*
 * XXH64 of keys and its reduction to a bucket.
 *
 * Written from the specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md):
 * the ids of a trained table depend on it, so it may never change. Nothing here fails.
 */
#ifndef DIN_HASH_H
#define DIN_HASH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  DIN_REDUCE_OFFSET, /* 1 + h % (n - 1): bucket 0 stays free for padding */
  DIN_REDUCE_MOD,    /* h % n */
  DIN_REDUCE_PMOD,   /* the signed 64-bit hash, floored modulo n */
  DIN_REDUCE_ABS,    /* |low 32 bits as signed| % n */
  DIN_REDUCE_RAW     /* h itself */
};

/* Longest decimal text of an int64: a sign and 19 digits. */
enum { DIN_MAX_DIGITS = 20 };

/*
 * A prepared reduction: h % divisor costs multiplications only.
 *
 * multiplier is ceil(2^128 / divisor) in two halves (Lemire, Kaser, Kurz: Faster
 * remainder by direct computation, 2019), exact for every 64-bit h and divisor.
 */
typedef struct {
  int32_t kind;
  uint64_t divisor;
  uint64_t multiplier_low;
  uint64_t multiplier_high;
  uint64_t wrap; /* 2^64 % divisor, what pmod takes off a negative hash */
} din_reduction;

/*
 * @pre num_buckets >= 1; >= 2 for DIN_REDUCE_OFFSET; not read for DIN_REDUCE_RAW
 */
void din_prepare_reduction(int32_t kind, uint64_t num_buckets, din_reduction *out);

/* @pre num_bytes >= 0 and key holds that many bytes; may be NULL when 0 */
uint64_t din_hash_bytes(const uint8_t *key, int64_t num_bytes, uint64_t seed);

/* Hash the key's 8 little-endian bytes. */
uint64_t din_hash_int64(int64_t key, uint64_t seed);

/* Hash the key's decimal text. */
uint64_t din_hash_int64_text(int64_t key, uint64_t seed);

/* @pre reduction was filled by din_prepare_reduction */
int64_t din_reduce(uint64_t hash, const din_reduction *reduction);

#ifdef __cplusplus
}
#endif

#endif /* DIN_HASH_H */
