/*
 * A read-only table from keys (bytes or int64) to their position: each key lies in the
 * one slot where a look-up reads, so that nothing is probed.
 *
 * Hash and displace (Belazzougui, Botelho, Dietzfelbinger 2009): the hash names a
 * bucket of some three keys, and the bucket's pilot, a byte found when the table is
 * built, moves them all to slots that are free. Ids are 1.. in the order of the keys; 0
 * means not found. Keys are looked up by the block, so that the misses of many keys are
 * waited for together.
 */
#ifndef DIN_VOCAB_H
#define DIN_VOCAB_H

#include <stdint.h>

#include "block.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Most keys of a vocabulary: an id has 32 bits in a slot. */
#define DIN_MAX_VOCAB INT64_C(2147483645)

/* A key that no pilot moves to a free slot; there are few but of hashes made to clash. */
typedef struct {
  const uint8_t *key;
  int64_t num_bytes;
  int64_t id;
} din_stray_key;

/*
 * The keys are the caller's; what din_build_vocab adds is freed by din_free_vocab.
 *
 * A slot holds a key's id (32 bits; 0: free), its length (32 bits) and its bytes, or,
 * when these are more than `num_inside`, where in `bytes` they begin (64 bits).
 */
typedef struct {
  const din_block_isa *isa;
  int64_t num_keys;
  const int64_t *ints;    /* [num_keys], or NULL */
  const uint8_t *bytes;   /* the keys concatenated, or NULL */
  const int64_t *offsets; /* [num_keys + 1] */

  uint8_t *pilots; /* [num_buckets] */
  uint8_t *slots;  /* [num_slots, 8 + num_inside] */
  uint64_t num_buckets;
  uint64_t num_slots;
  int64_t num_inside;
  din_stray_key *strays; /* [num_strays], sorted */
  int64_t num_strays;
  int32_t reads_keys; /* whether the caller's keys are read once the table is built */
} din_vocab;

/* What din_build_vocab returns but the number of a key that is there twice. */
enum { DIN_VOCAB_BUILT = -1, DIN_VOCAB_NO_MEMORY = -2 };

/*
 * Build the table from the keys; returns DIN_VOCAB_BUILT, or the first key that is equal
 * to an earlier one (which then stands at *earlier). To be freed in either case.
 *
 * Takes O(n log n) comparisons of keys, whatever they hash to.
 *
 * @pre all but isa and the keys is 0; exactly one kind of key is set, or none when
 *      there are no keys; num_keys <= DIN_MAX_VOCAB; bytes are fewer than 2^32
 */
int64_t din_build_vocab(din_vocab *vocab, int64_t *earlier);

/* Free what din_build_vocab allocated, if anything. */
void din_free_vocab(din_vocab *vocab);

/* @pre vocab was built from bytes; keys and `end` as of din_hash_keys_fn */
void din_find_bytes(const din_vocab *vocab, const uint8_t *const *keys,
                    const int64_t *sizes, int64_t n, const uint8_t *end, int64_t *ids);

/* @pre vocab was built from int64; n <= DIN_BLOCK. ids are not the keys. */
void din_find_ints(const din_vocab *vocab, const int64_t *keys, int64_t n,
                   int64_t *ids);

#ifdef __cplusplus
}
#endif

#endif /* DIN_VOCAB_H */
