/*
 * A read-only table from keys (bytes or int64) to their position, open addressing.
 *
 * The caller owns all memory: slots [num_slots] and the keys. Ids are 1.. in the order
 * of the keys; 0 means not found.
 */
#ifndef DIN_VOCAB_H
#define DIN_VOCAB_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  uint64_t hash;
  int64_t id; /* 0: free */
} din_slot;

typedef struct {
  din_slot *slots;
  int64_t num_slots;
  int64_t num_keys;
  const int64_t *ints;    /* [num_keys], or NULL */
  const uint8_t *bytes;   /* the keys concatenated, or NULL */
  const int64_t *offsets; /* [num_keys + 1] */
} din_vocab;

/* Slots that a table of num_keys needs: a power of two, at most half full. */
int64_t din_vocab_num_slots(int64_t num_keys);

/*
 * Fill the slots from the keys.
 *
 * @pre num_slots == din_vocab_num_slots(num_keys); exactly one kind of key is set
 * @pre no key occurs twice
 */
void din_fill_vocab(din_vocab *vocab);

/* @pre vocab was filled from bytes; num_bytes >= 0 */
int64_t din_find_bytes(const din_vocab *vocab, const uint8_t *key, int64_t num_bytes);

/* @pre vocab was filled from int64 */
int64_t din_find_int64(const din_vocab *vocab, int64_t key);

#ifdef __cplusplus
}
#endif

#endif /* DIN_VOCAB_H */
