#include "vocab.h"

#include <assert.h>
#include <string.h>

#include "hash_inline.h"

int64_t din_vocab_num_slots(int64_t num_keys) {
  int64_t num_slots = 2;
  while (num_slots < 2 * num_keys) {
    num_slots *= 2;
  }
  return num_slots;
}

void din_fill_vocab(din_vocab *v) {
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  memset(v->slots, 0, (size_t)v->num_slots * sizeof *v->slots);
  for (int64_t i = 0; i < v->num_keys; ++i) {
    uint64_t h;
    if (v->ints != NULL) {
      h = din_hash_int64_inline(v->ints[i], 0);
    } else {
      const int64_t size = v->offsets[i + 1] - v->offsets[i];
      h = din_hash_bytes_inline(v->bytes + v->offsets[i], size, 0);
    }
    uint64_t at = h & mask;
    while (v->slots[at].id != 0) {
      at = (at + 1) & mask;
    }
    v->slots[at].hash = h;
    v->slots[at].id = i + 1;
  }
}

int64_t din_find_bytes(const din_vocab *v, const uint8_t *key, int64_t num_bytes) {
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  const uint64_t h = din_hash_bytes_inline(key, num_bytes, 0);
  for (uint64_t at = h & mask; v->slots[at].id != 0; at = (at + 1) & mask) {
    if (v->slots[at].hash == h) {
      const int64_t i = v->slots[at].id - 1;
      const int64_t size = v->offsets[i + 1] - v->offsets[i];
      if (size == num_bytes &&
          (size == 0 || memcmp(v->bytes + v->offsets[i], key, (size_t)size) == 0)) {
        return i + 1;
      }
    }
  }
  return 0;
}

int64_t din_find_int64(const din_vocab *v, int64_t key) {
  const uint64_t mask = (uint64_t)v->num_slots - 1;
  const uint64_t h = din_hash_int64_inline(key, 0);
  for (uint64_t at = h & mask; v->slots[at].id != 0; at = (at + 1) & mask) {
    if (v->slots[at].hash == h && v->ints[v->slots[at].id - 1] == key) {
      return v->slots[at].id;
    }
  }
  return 0;
}
