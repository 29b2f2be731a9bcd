/*
 * A read-only table from keys (bytes or int64) to their position, open addressing.
 *
 * The caller owns all memory: slots and keys. Ids are 1.. in the order of the keys;
 * 0 means not found. Keys are looked up by the block, so that the misses of many keys
 * are waited for together.
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

/* A slot of integers; its id is 0 when it is free. */
typedef struct {
  int64_t key;
  int64_t id;
} din_int_slot;

/*
 * `slots` holds din_int_slot, or for bytes uint64_t: the id in the low 32 bits (0:
 * free), the high 32 of the key's hash above them.
 */
typedef struct {
  const din_block_isa *isa;
  void *slots;
  int64_t num_slots; /* a power of two */
  int64_t num_keys;
  const int64_t *ints;    /* [num_keys], or NULL */
  const uint8_t *bytes;   /* the keys concatenated, or NULL */
  const int64_t *offsets; /* [num_keys + 1] */
} din_vocab;

/* Slots that a table of num_keys needs: a power of two, at most half full. */
int64_t din_vocab_num_slots(int64_t num_keys);

/*
 * Fill the slots, which are zero, from the keys; returns -1, or the first key that is
 * equal to an earlier one (which then stands at *earlier).
 *
 * @pre num_slots == din_vocab_num_slots(num_keys); exactly one kind of key is set;
 *      num_keys <= DIN_MAX_VOCAB
 */
int64_t din_fill_vocab(const din_vocab *vocab, int64_t *earlier);

/* @pre vocab was filled from bytes; keys and `end` as of din_hash_keys_fn */
void din_find_bytes(const din_vocab *vocab, const uint8_t *const *keys,
                    const int64_t *sizes, int64_t n, const uint8_t *end, int64_t *ids);

/* @pre vocab was filled from int64; n <= DIN_BLOCK. ids are not the keys. */
void din_find_ints(const din_vocab *vocab, const int64_t *keys, int64_t n,
                   int64_t *ids);

#ifdef __cplusplus
}
#endif

#endif /* DIN_VOCAB_H */
