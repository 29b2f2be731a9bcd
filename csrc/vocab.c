#include "vocab.h"

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "column_inline.h"
#include "pages.h"

enum {
  HEADER = 8, /* id and length */
  LONGEST_INSIDE = 56,
  MOST_TOGETHER = 32,
  STRAY = 255 /* the pilot of a bucket that has none */
};

/*
 * A million keys of 13 bytes, Zipf, on a Xeon of 2023, medians of four runs: 15 to 21 ns
 * a look-up, hash and all (probing a table half full: 50 to 67), 32 bytes a key, built
 * in 0.12 to 0.16 s. Looser tables are no faster; with 4 keys a bucket, or 85 % in use, a
 * few keys find no slot.
 */
static const double KEYS_PER_BUCKET = 3;
static const double LOAD = 0.75;

/* Map the high half of a hash to [0, n), n < 2^32. */
static inline uint64_t scale(uint64_t hash, uint64_t n) {
  return ((hash >> 32) * n) >> 32;
}

static inline uint8_t *slot_at(const din_vocab *v, uint64_t index) {
  return v->slots + index * (uint64_t)(HEADER + v->num_inside);
}

static inline uint64_t index_of(const din_vocab *v, uint64_t hash, uint64_t pilot) {
  const uint64_t moved = hash ^ pilot * UINT64_C(0x9E3779B97F4A7C15);
  return scale(moved * UINT64_C(0xD6E8FEB86659FD93), v->num_slots);
}

static inline uint64_t pilot_of(const din_vocab *v, uint64_t hash) {
  return v->pilots[scale(hash, v->num_buckets)];
}

/* 0 when n bytes of both are equal. */
static inline uint64_t differ(const uint8_t *a, const uint8_t *b, int64_t n) {
#define DIFFER(bits, at) \
  (din_read_ui##bits(a + (at), 0) ^ din_read_ui##bits(b + (at), 0))
  if (n >= 8) {
    const int64_t middle = (n - 8) >> 1; /* up to 24 bytes, three words hold all */
    uint64_t found = DIFFER(64, 0) | DIFFER(64, middle) | DIFFER(64, n - 8);
    for (int64_t i = 8; n > 24 && i < n - 8; i += 8) found |= DIFFER(64, i);
    return found;
  }
  if (n >= 4) return DIFFER(32, 0) | DIFFER(32, n - 4);
  return n == 0 ? 0 : (uint64_t)(DIFFER(8, 0) | DIFFER(8, n >> 1) | DIFFER(8, n - 1));
#undef DIFFER
}

/* ------------------------------------------------------------------------ look-up */

static int compare_bytes(const void *a, const void *b) {
  const din_stray_key *x = a;
  const din_stray_key *y = b;
  if (x->num_bytes != y->num_bytes) return x->num_bytes < y->num_bytes ? -1 : 1;
  return memcmp(x->key, y->key, (size_t)x->num_bytes);
}

static int64_t find_stray(const din_vocab *v, const uint8_t *key, int64_t num_bytes) {
  const din_stray_key wanted = {key, num_bytes, 0};
  const din_stray_key *found =
      bsearch(&wanted, v->strays, (size_t)v->num_strays, sizeof wanted, compare_bytes);
  return found != NULL ? found->id : 0;
}

/* Find keys whose hashes are known; `ints`, which is NULL or not where this is inlined,
 * stands for keys and sizes. */
static inline void find(const din_vocab *v, const uint8_t *const *keys,
                        const int64_t *sizes, const int64_t *ints,
                        const uint64_t *hashes, int64_t n, int64_t *ids) {
  const int64_t inside = ints != NULL ? 8 : v->num_inside;
  const uint8_t *slots[DIN_BLOCK];
  int has_strays = 0;
  for (int64_t i = 0; i < n; ++i) {
    DIN_PREFETCH(v->pilots + scale(hashes[i], v->num_buckets));
  }
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t pilot = pilot_of(v, hashes[i]);
    has_strays |= pilot == STRAY;
    slots[i] = slot_at(v, index_of(v, hashes[i], pilot));
    DIN_PREFETCH(slots[i]);
    if (ints == NULL) DIN_PREFETCH(slots[i] + HEADER + inside - 1);
  }
  for (int64_t i = 0; ints == NULL && v->reads_keys && i < n; ++i) {
    if (sizes[i] > inside && sizes[i] == din_read_ui32(slots[i], 1)) {
      DIN_PREFETCH(v->bytes + din_read_ui64(slots[i] + HEADER, 0));
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t *slot = slots[i];
    uint64_t differs;
    if (ints != NULL) {
      differs = (uint64_t)(ints[i] ^ din_read_i64(slot + HEADER, 0));
    } else {
      const int64_t size = sizes[i];
      differs = (uint64_t)size ^ din_read_ui32(slot, 1);
      if (size <= inside) {
        differs |= differ(slot + HEADER, keys[i], size);
      } else if (differs == 0) {
        const uint8_t *found = v->bytes + din_read_ui64(slot + HEADER, 0);
        differs = (uint64_t)(memcmp(found, keys[i], (size_t)size) != 0);
      }
    }
    ids[i] = din_read_ui32(slot, 0) & -(int64_t)(differs == 0);
  }
  for (int64_t i = 0; has_strays && i < n; ++i) {
    if (pilot_of(v, hashes[i]) != STRAY) continue;
    ids[i] = ints != NULL ? find_stray(v, (const uint8_t *)(ints + i), 8)
                          : find_stray(v, keys[i], sizes[i]);
  }
}

void din_find_bytes(const din_vocab *v, const uint8_t *const *keys,
                    const int64_t *sizes, int64_t n, const uint8_t *end, int64_t *ids) {
  uint64_t hashes[DIN_BLOCK];
  v->isa->hash_keys[DIN_HASH_XXH64](keys, sizes, n, end, 0, hashes);
  find(v, keys, sizes, NULL, hashes, n, ids);
}

void din_find_ints(const din_vocab *v, const int64_t *keys, int64_t n, int64_t *ids) {
  uint64_t hashes[DIN_BLOCK];
  v->isa->hash_ints[DIN_HASH_XXH64](keys, n, 0, hashes);
  find(v, NULL, NULL, keys, hashes, n, ids);
}

/* ----------------------------------------------------------------------- building */

static din_stray_key key_at(const din_vocab *v, int64_t number) {
  if (v->ints != NULL) {
    return (din_stray_key){(const uint8_t *)(v->ints + number), 8, number + 1};
  }
  const int64_t begin = v->offsets[number];
  const int64_t size = v->offsets[number + 1] - begin;
  return (din_stray_key){v->bytes + begin, size, number + 1};
}

/* Room for 7 of 8 keys; where so many are long, for no more than where they lie. */
static int64_t choose_inside(const din_vocab *v) {
  if (v->ints != NULL) return 8;
  int64_t num_longer[LONGEST_INSIDE / 8 + 1] = {0}; /* than 8 k bytes */
  for (int64_t i = 0; i < v->num_keys; ++i) {
    const int64_t size = v->offsets[i + 1] - v->offsets[i];
    for (int64_t k = 0; k <= LONGEST_INSIDE / 8 && size > 8 * k; ++k)
      num_longer[k] += 1;
  }
  for (int64_t k = 1; k <= LONGEST_INSIDE / 8; ++k) {
    if (num_longer[k] <= v->num_keys / 8) return 8 * k;
  }
  return 8;
}

/* Hash up to DIN_BLOCK keys from `first` on; returns how many. */
static int64_t hash_some(const din_vocab *v, int64_t first, uint64_t *hashes) {
  const int64_t left = v->num_keys - first;
  const int64_t n = left < DIN_BLOCK ? left : DIN_BLOCK;
  if (v->ints != NULL) {
    v->isa->hash_ints[DIN_HASH_XXH64](v->ints + first, n, 0, hashes);
  } else {
    const uint8_t *keys[DIN_BLOCK];
    int64_t sizes[DIN_BLOCK];
    const uint8_t *end = v->bytes + v->offsets[first + n];
    v->isa->read_keys[1](v->bytes, v->offsets[v->num_keys], v->offsets + first, n, keys,
                         sizes);
    v->isa->hash_keys[DIN_HASH_XXH64](keys, sizes, n, end, 0, hashes);
  }
  return n;
}

/* Sort the hashes by bucket, by counting; those of bucket b end at ends[b]. */
static void sort_hashes(const din_vocab *v, uint32_t *ends, uint64_t *sorted) {
  uint64_t hashes[DIN_BLOCK];
  for (int64_t i = 0; i < v->num_keys; i += DIN_BLOCK) {
    const int64_t n = hash_some(v, i, hashes);
    for (int64_t k = 0; k < n; ++k) ends[scale(hashes[k], v->num_buckets)] += 1;
  }
  uint32_t sum = 0;
  for (uint64_t b = 0; b < v->num_buckets; ++b) {
    const uint32_t count = ends[b];
    ends[b] = sum;
    sum += count;
  }
  for (int64_t i = 0; i < v->num_keys; i += DIN_BLOCK) {
    const int64_t n = hash_some(v, i, hashes);
    for (int64_t k = 0; k < n; ++k) {
      DIN_PREFETCH(sorted + ends[scale(hashes[k], v->num_buckets)]);
    }
    for (int64_t k = 0; k < n; ++k) {
      sorted[ends[scale(hashes[k], v->num_buckets)]++] = hashes[k];
    }
  }
}

/* Find the pilot that moves the keys of one bucket to free slots, and take these. */
static uint8_t take_slots(const din_vocab *v, const uint64_t *hashes, int64_t n,
                          uint64_t *taken) {
  uint64_t at[MOST_TOGETHER];
  for (uint64_t pilot = 0; n <= MOST_TOGETHER && pilot < STRAY; ++pilot) {
    int64_t i = 0;
    for (; i < n; ++i) {
      at[i] = index_of(v, hashes[i], pilot);
      if (taken[at[i] >> 6] >> (at[i] & 63) & 1) break;
      taken[at[i] >> 6] |= (uint64_t)1 << (at[i] & 63);
    }
    if (i == n) return (uint8_t)pilot;
    while (i-- > 0) taken[at[i] >> 6] ^= (uint64_t)1 << (at[i] & 63);
  }
  return STRAY;
}

/* Find the pilots, of the fullest buckets first: few slots are taken then. */
static void find_pilots(din_vocab *v, const uint32_t *ends, const uint64_t *sorted,
                        uint64_t *taken) {
  for (int64_t size = MOST_TOGETHER + 1; size > 0; --size) {
    for (uint64_t b = 0; b < v->num_buckets; ++b) {
      const int64_t begin = b > 0 ? ends[b - 1] : 0;
      const int64_t n = ends[b] - begin;
      if (n == size || (n > size && size > MOST_TOGETHER)) {
        v->pilots[b] = take_slots(v, sorted + begin, n, taken);
        v->num_strays += v->pilots[b] == STRAY ? n : 0;
      }
    }
  }
}

/* Write the keys to their slots, or to the strays. */
static void place_keys(din_vocab *v) {
  uint64_t hashes[DIN_BLOCK];
  uint8_t *slots[DIN_BLOCK];
  int64_t num_strays = 0;
  for (int64_t first = 0; first < v->num_keys; first += DIN_BLOCK) {
    const int64_t n = hash_some(v, first, hashes);
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t pilot = pilot_of(v, hashes[i]);
      slots[i] = pilot == STRAY ? NULL : slot_at(v, index_of(v, hashes[i], pilot));
      DIN_PREFETCH(slots[i]);
    }
    for (int64_t i = 0; i < n; ++i) {
      const din_stray_key key = key_at(v, first + i);
      if (slots[i] == NULL) {
        v->strays[num_strays++] = key;
        continue;
      }
      const uint32_t header[2] = {(uint32_t)key.id, (uint32_t)key.num_bytes};
      memcpy(slots[i], header, HEADER);
      if (key.num_bytes <= v->num_inside) {
        memcpy(slots[i] + HEADER, key.key, (size_t)key.num_bytes);
      } else {
        memcpy(slots[i] + HEADER, v->offsets + first + i, 8);
        v->reads_keys = 1;
      }
    }
  }
}

/* Equal keys in the order of their ids. */
static int compare_strays(const void *a, const void *b) {
  const int order = compare_bytes(a, b);
  const int64_t ids[2] = {((const din_stray_key *)a)->id,
                          ((const din_stray_key *)b)->id};
  return order != 0 ? order : (ids[0] > ids[1]) - (ids[0] < ids[1]);
}

/* Sort the strays; returns the first key that is there twice, as din_build_vocab does.
 * All such are strays, since no pilot moves equal keys to two slots. */
static int64_t sort_strays(din_vocab *v, int64_t *earlier) {
  int64_t twice = DIN_VOCAB_BUILT;
  qsort(v->strays, (size_t)v->num_strays, sizeof *v->strays, compare_strays);
  for (int64_t i = 1; i < v->num_strays; ++i) {
    const din_stray_key *key = v->strays + i;
    if (compare_bytes(key - 1, key) == 0 && (twice < 0 || key->id <= twice)) {
      twice = key->id - 1;
      *earlier = key[-1].id - 1;
    }
  }
  return twice;
}

int64_t din_build_vocab(din_vocab *v, int64_t *earlier) {
  assert(v->num_keys <= DIN_MAX_VOCAB);
  int64_t result = DIN_VOCAB_NO_MEMORY;
  v->num_buckets = (uint64_t)((double)v->num_keys / KEYS_PER_BUCKET) + 1;
  v->num_slots = (uint64_t)((double)v->num_keys / LOAD) + 1;
  v->num_inside = choose_inside(v);
  v->pilots = din_allocate_pages(v->num_buckets);
  uint32_t *ends = din_allocate_pages(v->num_buckets * sizeof *ends);
  uint64_t *sorted = din_allocate_pages((uint64_t)(v->num_keys + 1) * sizeof *sorted);
  uint64_t *taken = din_allocate_pages((v->num_slots / 64 + 1) * sizeof *taken);
  if (v->pilots != NULL && ends != NULL && sorted != NULL && taken != NULL) {
    sort_hashes(v, ends, sorted);
    find_pilots(v, ends, sorted, taken);
    v->reads_keys = v->num_strays > 0;
    v->strays = din_allocate_pages((uint64_t)(v->num_strays + 1) * sizeof *v->strays);
    v->slots = din_allocate_pages(v->num_slots * (uint64_t)(HEADER + v->num_inside));
    if (v->strays != NULL && v->slots != NULL) {
      place_keys(v);
      result = sort_strays(v, earlier);
    }
  }
  free(ends);
  free(sorted);
  free(taken);
  return result;
}

void din_free_vocab(din_vocab *v) {
  free(v->pilots);
  free(v->slots);
  free(v->strays);
}
