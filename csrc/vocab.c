#include "vocab.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

static const uint64_t LOW32 = 0xFFFFFFFFu;

int64_t din_vocab_num_slots(int64_t num_keys) {
  int64_t num_slots = 2;
  while (num_slots < 2 * num_keys) {
    num_slots *= 2;
  }
  return num_slots;
}

/* Whether a key is the one of this id. */
static int is_key(const din_vocab *v, int64_t id, const uint8_t *key,
                  int64_t num_bytes) {
  const int64_t begin = v->offsets[id - 1];
  return v->offsets[id] - begin == num_bytes &&
         (num_bytes == 0 || memcmp(v->bytes + begin, key, (size_t)num_bytes) == 0);
}

/* Find the slot of a key, or the free one where it would go, from slot `at` on. */
static uint64_t probe_bytes(const din_vocab *v, uint64_t h, uint64_t at,
                            const uint8_t *key, int64_t num_bytes) {
  const uint64_t *slots = v->slots;
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  for (;; at = (at + 1) & mask) {
    const uint64_t slot = slots[at];
    if ((slot & LOW32) == 0) return at;
    if ((slot ^ h) >> 32 == 0 && is_key(v, (int64_t)(slot & LOW32), key, num_bytes)) {
      return at;
    }
  }
}

static uint64_t probe_int(const din_vocab *v, uint64_t h, int64_t key) {
  const din_int_slot *slots = v->slots;
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  uint64_t at = h & mask;
  while (slots[at].id != 0 && slots[at].key != key) at = (at + 1) & mask;
  return at;
}

void din_find_bytes(const din_vocab *v, const uint8_t *const *keys,
                    const int64_t *sizes, int64_t n, const uint8_t *end, int64_t *ids) {
  const uint64_t *slots = v->slots;
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  uint64_t hashes[DIN_BLOCK];
  uint64_t at[DIN_BLOCK];
  v->isa->hash_keys[DIN_HASH_XXH64](keys, sizes, n, end, 0, hashes);
  for (int64_t i = 0; i < n; ++i) DIN_PREFETCH(slots + (hashes[i] & mask));
  for (int64_t i = 0; i < n; ++i) {
    /* the first slot that is free or may be the key's */
    at[i] = hashes[i] & mask;
    while ((slots[at[i]] & LOW32) != 0 && (slots[at[i]] ^ hashes[i]) >> 32 != 0) {
      at[i] = (at[i] + 1) & mask;
    }
    DIN_PREFETCH(v->offsets + (slots[at[i]] & LOW32));
  }
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t id = slots[at[i]] & LOW32;
    if (id != 0) DIN_PREFETCH(v->bytes + v->offsets[id - 1]);
  }
  for (int64_t i = 0; i < n; ++i) {
    at[i] = probe_bytes(v, hashes[i], at[i], keys[i], sizes[i]);
    ids[i] = (int64_t)(slots[at[i]] & LOW32);
  }
}

void din_find_ints(const din_vocab *v, const int64_t *keys, int64_t n, int64_t *ids) {
  const din_int_slot *slots = v->slots;
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  uint64_t hashes[DIN_BLOCK];
  v->isa->hash_ints[DIN_HASH_XXH64](keys, n, 0, hashes);
  for (int64_t i = 0; i < n; ++i) DIN_PREFETCH(slots + (hashes[i] & mask));
  for (int64_t i = 0; i < n; ++i) ids[i] = slots[probe_int(v, hashes[i], keys[i])].id;
}

static int64_t fill_bytes(const din_vocab *v, int64_t first, int64_t n,
                          int64_t *earlier) {
  uint64_t *slots = v->slots;
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  const uint8_t *keys[DIN_BLOCK] = {NULL};
  int64_t sizes[DIN_BLOCK] = {0};
  uint64_t hashes[DIN_BLOCK];
  for (int64_t i = 0; i < n; ++i) {
    keys[i] = v->bytes + v->offsets[first + i];
    sizes[i] = v->offsets[first + i + 1] - v->offsets[first + i];
  }
  v->isa->hash_keys[DIN_HASH_XXH64](keys, sizes, n, keys[n - 1] + sizes[n - 1], 0,
                                    hashes);
  for (int64_t i = 0; i < n; ++i) DIN_PREFETCH(slots + (hashes[i] & mask));
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t h = hashes[i];
    const uint64_t at = probe_bytes(v, h, h & mask, keys[i], sizes[i]);
    if (slots[at] != 0) {
      *earlier = (int64_t)(slots[at] & LOW32) - 1;
      return first + i;
    }
    slots[at] = (h & ~LOW32) | (uint64_t)(first + i + 1);
  }
  return -1;
}

static int64_t fill_ints(const din_vocab *v, int64_t first, int64_t n,
                         int64_t *earlier) {
  din_int_slot *slots = v->slots;
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  uint64_t hashes[DIN_BLOCK];
  v->isa->hash_ints[DIN_HASH_XXH64](v->ints + first, n, 0, hashes);
  for (int64_t i = 0; i < n; ++i) DIN_PREFETCH(slots + (hashes[i] & mask));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t key = v->ints[first + i];
    din_int_slot *slot = slots + probe_int(v, hashes[i], key);
    if (slot->id != 0) {
      *earlier = slot->id - 1;
      return first + i;
    }
    slot->key = key;
    slot->id = first + i + 1;
  }
  return -1;
}

int64_t din_fill_vocab(const din_vocab *v, int64_t *earlier) {
  assert(v->num_keys <= DIN_MAX_VOCAB);
  for (int64_t first = 0; first < v->num_keys; first += DIN_BLOCK) {
    const int64_t left = v->num_keys - first;
    const int64_t n = left < DIN_BLOCK ? left : DIN_BLOCK;
    const int64_t twice = v->ints != NULL ? fill_ints(v, first, n, earlier)
                                          : fill_bytes(v, first, n, earlier);
    if (twice >= 0) return twice;
  }
  return -1;
}
