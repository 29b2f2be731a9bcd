/*
 * Blocks of keys and ids: what each instruction set does in a way of its own.
 *
 * A block is of at most DIN_BLOCK elements, so that scratch fits the stack and the
 * first-level cache. All instruction sets compute the same; nothing here fails.
 */
#ifndef DIN_BLOCK_H
#define DIN_BLOCK_H

#include <stdint.h>

#include "hash.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DIN_BLOCK = 256 };

#if defined(__GNUC__)
#define DIN_PREFETCH(address) __builtin_prefetch(address)
#else
#define DIN_PREFETCH(address) ((void)(address))
#endif

/*
 * @pre keys[i] holds sizes[i] >= 0 bytes; 0 <= n <= DIN_BLOCK; all bytes from any key
 *      that lies before `end` up to there may be read, if it is not NULL
 */
typedef void din_hash_keys_fn(const uint8_t *const *keys, const int64_t *sizes,
                              int64_t n, const uint8_t *end, uint64_t seed,
                              uint64_t *hashes);

/* Hash each key's 8 little-endian bytes. */
typedef void din_hash_ints_fn(const int64_t *keys, int64_t n, uint64_t seed,
                              uint64_t *hashes);

typedef struct {
  const char *name;
  din_hash_keys_fn *hash_keys[DIN_NUM_HASHES];
  din_hash_ints_fn *hash_ints[DIN_NUM_HASHES];

  /* @pre reduction was prepared. ids may be the hashes themselves. */
  void (*reduce)(const uint64_t *hashes, int64_t n, const din_reduction *reduction,
                 int64_t *ids);

  /* Say where the keys between n + 1 offsets of 32 or of 64 bits lie; returns whether
     all of them lie in the bytes. */
  int (*read_keys[2])(const uint8_t *bytes, int64_t num_bytes, const void *offsets,
                      int64_t n, const uint8_t **keys, int64_t *sizes);

  /* Whether none of n + 1 offsets, of 32 or of 64 bits, is less than that before it. */
  int (*rise[2])(const void *offsets, int64_t n);

  /* The highest of n indices of 8 << k bits, read as unsigned; 0 of none. */
  uint64_t (*highest[4])(const void *indices, int64_t n);

  /*
   * Write `count` ids, and 0 behind them up to `width`.
   *
   * @pre 0 <= count <= width; `width` ids may be read, whatever they are
   */
  void (*write_row)(const int64_t *ids, int64_t count, int64_t width, int64_t *out);
} din_block_isa;

/* Return the i-th instruction set of this machine, best first, or NULL. */
const din_block_isa *din_block_isa_at(int32_t i);

/* Return the one of a name, the best for NULL or "", or NULL where it is not here. */
const din_block_isa *din_find_block_isa(const char *name);

#ifdef __cplusplus
}
#endif

#endif /* DIN_BLOCK_H */
