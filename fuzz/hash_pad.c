/*
 * What each instruction set of this machine does with a block, compared with the
 * baseline's and with loops that are slow and plain: hashes of keys and of integers,
 * reductions, offsets, rows, vocabularies, decimals, windows of lists, padding. All
 * memory is exactly as large as is needed, so that the last key ends where it ends.
 */
#include <math.h>
#include <stdio.h>

#include "block.h"
#include "decimal.h"
#include "encode.h"
#include "hash.h"
#include "input.h"
#include "pad.h"
#include "vocab.h"

static const din_block_isa *isas[8];
static int num_isas;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  while ((isas[num_isas] = din_block_isa_at(num_isas)) != NULL) ++num_isas;
  fprintf(stderr, "instruction sets:");
  for (int i = 0; i < num_isas; ++i) fprintf(stderr, " %s", isas[i]->name);
  fprintf(stderr, "\n");
  return 0;
}

#define REQUIRE(condition, isa)                                                 \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "ERROR: %s, line %d: %s\n", (isa), __LINE__, #condition); \
      abort();                                                                  \
    }                                                                           \
  } while (0)

static const din_block_isa *baseline(void) { return isas[num_isas - 1]; }

static uint64_t take64(input *in) {
  uint64_t x = 0;
  const int how = take(in) % 4;
  if (how == 0) return (uint64_t)take(in);
  if (how == 1) return 0 - (uint64_t)take(in);
  if (how == 2) return (uint64_t)1 << take(in) % 64;
  for (int i = 0; i < 8; ++i) x = x << 8 | (uint64_t)take(in);
  return x;
}

static int64_t take_count(input *in) {
  const int how = take(in);
  return how < 200 ? how % 20 : how == 255 ? DIN_BLOCK : take(in);
}

/* ------------------------------------------------------------------------------ hashes */

static void try_keys(input *in) {
  static const int longest[] = {4, 17, 33, 70, 300};
  const uint8_t *keys[DIN_BLOCK];
  int64_t sizes[DIN_BLOCK], offsets[DIN_BLOCK + 1];
  uint64_t hashes[DIN_BLOCK], wanted[DIN_BLOCK];
  const int64_t n = take_count(in);
  const int most = longest[take(in) % 5], is_even = take(in) & 1;
  const int first = most > 1 ? take(in) % most : 0;
  const uint64_t seed = take64(in);
  offsets[0] = 0;
  for (int64_t i = 0; i < n; ++i) {
    sizes[i] = is_even ? first : (int64_t)draw(in) % (most + 1);
    offsets[i + 1] = offsets[i] + sizes[i];
  }
  uint8_t *bytes = give(in, (size_t)offsets[n]);
  fill_bytes(in, bytes, offsets[n]);
  for (int64_t i = 0; i < n; ++i) keys[i] = bytes + offsets[i];
  const uint8_t *const ends[] = {NULL, bytes + offsets[n]};
  for (int32_t hash = 0; hash < DIN_NUM_HASHES; ++hash) {
    const uint64_t of = hash == DIN_HASH_MURMUR3_32 ? seed & UINT32_MAX : seed;
    for (int64_t i = 0; i < n; ++i) {
      baseline()->hash_keys[hash](&keys[i], &sizes[i], 1, NULL, of, &wanted[i]);
    }
    for (int k = 0; k < 2 * num_isas; ++k) {
      const din_block_isa *isa = isas[k / 2];
      isa->hash_keys[hash](keys, sizes, n, ends[k % 2], of, hashes);
      REQUIRE(memcmp(hashes, wanted, (size_t)n * 8) == 0, isa->name);
    }
  }
  for (int32_t hash = DIN_NUM_HASHES; hash <= DIN_HASH_MURMUR3_32_VW; ++hash) {
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t of = hash == DIN_HASH_SIPHASH_24 ? seed : seed & UINT32_MAX;
      const uint64_t h = din_hash_other(hash, keys[i], sizes[i], of, ~seed);
      uint8_t *alone = malloc((size_t)sizes[i]); /* the same, wherever it lies */
      memcpy(alone, keys[i], (size_t)sizes[i]);
      REQUIRE(h == din_hash_other(hash, alone, sizes[i], of, ~seed), "other");
      free(alone);
    }
  }
}

static void try_ints(input *in) {
  uint64_t hashes[DIN_BLOCK], wanted[DIN_BLOCK];
  const int64_t n = take_count(in);
  const uint64_t seed = take64(in);
  int64_t *numbers = give(in, (size_t)n * sizeof *numbers);
  fill_numbers(in, (uint8_t *)numbers, n * 8, 8);
  for (int32_t hash = 0; hash < DIN_NUM_HASHES; ++hash) {
    const uint64_t of = hash == DIN_HASH_MURMUR3_32 ? seed & UINT32_MAX : seed;
    for (int64_t i = 0; i < n; ++i) {
      const uint8_t *key = (const uint8_t *)(numbers + i);
      const int64_t size = 8;
      baseline()->hash_keys[hash](&key, &size, 1, NULL, of, &wanted[i]);
    }
    for (int k = 0; k < num_isas; ++k) {
      isas[k]->hash_ints[hash](numbers, n, of, hashes);
      REQUIRE(memcmp(hashes, wanted, (size_t)n * 8) == 0, isas[k]->name);
    }
  }
}

__extension__ typedef __int128 wide;

static int64_t reduced(uint64_t h, int32_t kind, int is_32, uint64_t buckets) {
  const wide d = (wide)buckets;
  const wide of = is_32 ? (wide)(int32_t)(uint32_t)h : (wide)(int64_t)h;
  const wide low = (wide)(int32_t)(uint32_t)h;
  switch (kind) {
    case DIN_REDUCE_OFFSET:
      return (int64_t)(1 + (wide)h % (d - 1));
    case DIN_REDUCE_MOD:
      return (int64_t)((wide)h % d);
    case DIN_REDUCE_PMOD:
      return (int64_t)((of % d + d) % d);
    case DIN_REDUCE_ABS:
      return (int64_t)((low < 0 ? -low : low) % d);
    default:
      return (int64_t)h;
  }
}

static void try_reduce(input *in) {
  const int64_t n = take_count(in);
  const int32_t kind = pick(in, DIN_REDUCE_RAW + 1);
  const int32_t hash = pick(in, DIN_HASH_MURMUR3_32_VW + 1);
  const int is_32 = hash == DIN_HASH_MURMUR3_32 || hash == DIN_HASH_MURMUR3_32_SPARK;
  uint64_t buckets = take64(in) & INT64_MAX;
  if (buckets < 2) buckets = 2;
  uint64_t *hashes = give(in, (size_t)n * sizeof *hashes);
  int64_t *ids = give(in, (size_t)n * sizeof *ids);
  fill_numbers(in, (uint8_t *)hashes, n * 8, 8);
  din_reduction r;
  din_prepare_reduction(kind, hash, buckets, &r);
  for (int k = 0; k < num_isas; ++k) {
    isas[k]->reduce(hashes, n, &r, ids);
    for (int64_t i = 0; i < n; ++i) {
      REQUIRE(ids[i] == reduced(hashes[i], kind, is_32, buckets), isas[k]->name);
    }
  }
}

/* -------------------------------------------------------------------------------- rows */

static void try_rows(input *in) {
  const int64_t n = take_count(in), width = take(in);
  const int64_t count = width > 0 ? take(in) % (width + 1) : 0;
  for (int k = 0; k < 4; ++k) {
    uint8_t *data = give(in, (size_t)(n << k));
    fill_numbers(in, data, n << k, 1 << k);
    uint64_t highest = 0;
    for (int64_t i = 0; i < n; ++i) {
      uint64_t x = 0;
      memcpy(&x, data + (i << k), (size_t)1 << k);
      highest = x > highest ? x : highest;
    }
    for (int j = 0; j < num_isas; ++j) {
      REQUIRE(isas[j]->highest[k](data, n) == highest, isas[j]->name);
    }
  }
  for (int is_wide = 0; is_wide < 2; ++is_wide) {
    const int size = is_wide ? 8 : 4;
    uint8_t *offsets = give(in, (size_t)((n + 1) * size));
    fill_numbers(in, offsets, (n + 1) * size, size);
    int rise = 1;
    for (int64_t i = 0; i < n; ++i) {
      rise &= is_wide ? din_read_i64(offsets, i + 1) >= din_read_i64(offsets, i)
                      : din_read_i32(offsets, i + 1) >= din_read_i32(offsets, i);
    }
    for (int j = 0; j < num_isas; ++j) {
      REQUIRE(!isas[j]->rise[is_wide](offsets, n) == !rise, isas[j]->name);
    }
  }
  int64_t *ids = give(in, (size_t)width * 8), *row = give(in, (size_t)width * 8);
  fill_bytes(in, (uint8_t *)ids, width * 8);
  for (int j = 0; j < num_isas; ++j) {
    isas[j]->write_row(ids, count, width, row);
    for (int64_t i = 0; i < width; ++i) {
      REQUIRE(row[i] == (i < count ? ids[i] : 0), isas[j]->name);
    }
  }
}

static void try_pad(input *in) {
  const int64_t rows = take(in) % 40, width = take(in) % 20;
  int64_t *offsets = give(in, (size_t)(rows + 1) * 8);
  offsets[0] = 0;
  for (int64_t r = 0; r < rows; ++r) offsets[r + 1] = offsets[r] + draw(in) % 25;
  int64_t *values = give(in, (size_t)offsets[rows] * 8);
  fill_bytes(in, (uint8_t *)values, offsets[rows] * 8);
  int64_t *padded = give(in, (size_t)(rows * width) * 8);
  int64_t *lengths = give(in, (size_t)rows * 8);
  din_pad_int64(values, offsets, rows, width, padded, lengths);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t size = offsets[r + 1] - offsets[r];
    const int64_t kept = size < width ? size : width;
    REQUIRE(lengths[r] == kept, "pad");
    for (int64_t t = 0; t < width; ++t) {
      const int64_t x = t < kept ? values[offsets[r + 1] - kept + t] : 0;
      REQUIRE(padded[r * width + t] == x, "pad");
    }
  }
}

/* ------------------------------------------------------------------------ vocabularies */

static int is_same(const uint8_t *bytes, const int64_t *offsets, int64_t i, int64_t k) {
  const int64_t size = offsets[i + 1] - offsets[i];
  return size == offsets[k + 1] - offsets[k] &&
         memcmp(bytes + offsets[i], bytes + offsets[k], (size_t)size) == 0;
}

static void try_vocabulary(input *in) {
  const int64_t n = take_count(in) % 64, extra = take(in) % 16, all = n + extra;
  const int is_text = take(in) & 1, longest = (int[]){1, 8, 20, 80}[take(in) % 4];
  int64_t *offsets = give(in, (size_t)(all + 1) * 8);
  offsets[0] = 0;
  for (int64_t i = 0; i < all; ++i) {
    offsets[i + 1] = offsets[i] + (is_text ? (int64_t)draw(in) % (longest + 1) : 8);
  }
  uint8_t *bytes = give(in, (size_t)offsets[all]);
  if (is_text) {
    fill_text(in, bytes, offsets[all]);
  } else {
    fill_numbers(in, bytes, offsets[all], 8);
  }
  int64_t twice = -1, before = -1;
  for (int64_t i = 1; i < n && twice < 0; ++i) {
    for (int64_t k = 0; k < i; ++k) {
      if (!is_same(bytes, offsets, i, k)) continue;
      twice = i;
      before = k;
      break;
    }
  }
  const uint8_t *keys[DIN_BLOCK];
  int64_t sizes[DIN_BLOCK], ids[DIN_BLOCK];
  for (int64_t i = 0; i < all; ++i) {
    keys[i] = bytes + offsets[i];
    sizes[i] = offsets[i + 1] - offsets[i];
  }
  for (int j = 0; j < num_isas; ++j) {
    din_vocab v = {.isa = isas[j], .num_keys = n};
    int64_t earlier = -1;
    if (n > 0 && is_text) {
      v.bytes = bytes;
      v.offsets = offsets;
    } else if (n > 0) {
      v.ints = (const int64_t *)bytes;
    }
    const int64_t found = din_build_vocab(&v, &earlier);
    REQUIRE(found == (twice < 0 ? DIN_VOCAB_BUILT : twice), isas[j]->name);
    REQUIRE(twice < 0 || earlier == before, isas[j]->name);
    if (twice < 0) {
      if (is_text || n == 0) {
        din_find_bytes(&v, keys, sizes, all, bytes + offsets[all], ids);
      } else {
        din_find_ints(&v, (const int64_t *)bytes, all, ids);
      }
      for (int64_t i = 0; i < all; ++i) {
        int64_t wanted = i < n ? i + 1 : 0;
        for (int64_t k = 0; i >= n && k < n; ++k) {
          if (is_same(bytes, offsets, i, k)) wanted = k + 1;
        }
        REQUIRE(ids[i] == wanted, isas[j]->name);
      }
    }
    din_free_vocab(&v);
  }
}

/* ---------------------------------------------------------------------------- decimals */

/* The integer that x / 10^scale is: DIN_FITS_..; DIN_IS_FRACTION. */
static int32_t exact(wide x, int32_t scale, int64_t *out) {
  *out = 0;
  for (; scale > 0 && x != 0; --scale) {
    if (x % 10 != 0) return DIN_IS_FRACTION;
    x /= 10;
  }
  for (; scale < 0 && x != 0; ++scale) {
    if (x > INT64_MAX || x < -(wide)INT64_MAX) return DIN_FITS_NEITHER;
    x *= 10;
  }
  *out = (int64_t)x;
  if (x >= INT64_MIN && x <= INT64_MAX) return DIN_FITS_INT64;
  return x > 0 && x <= (wide)UINT64_MAX ? DIN_FITS_UINT64 : DIN_FITS_NEITHER;
}

static void try_decimals(input *in) {
  static const int32_t scales[] = {0, 1, 2, 9, 18, 19, 37, 76, 77, 300, 2147483647};
  int64_t out[DIN_BLOCK];
  double rounded[DIN_BLOCK];
  uint8_t is_wide[DIN_BLOCK];
  const int64_t n = 1 + take_count(in) % DIN_BLOCK, offset = take(in) % 3;
  const int32_t type = DIN_DECIMAL32 + pick(in, 4);
  const int size = 4 << (type - DIN_DECIMAL32);
  int32_t scale = scales[pick(in, 11)];
  if (take(in) & 1) scale = -scale;
  uint8_t *data = give(in, (size_t)((n + offset) * size));
  fill_numbers(in, data, (n + offset) * size, size);
  din_values v = {
      .type = type, .length = n, .offset = offset, .data = data, .scale = scale};
  din_round_decimals(&v, 0, n, rounded);
  for (int64_t i = 0; i < n; ++i) {
    int32_t found = DIN_FITS_INT64;
    memset(is_wide, 0, sizeof is_wide);
    const int64_t stop = din_read_exact(&v, i, 1, NULL, out, is_wide, &found);
    REQUIRE(stop == (found == DIN_IS_FRACTION ? 0 : 1), "decimal");
    REQUIRE(!isnan(rounded[i]), "decimal");
    if (type == DIN_DECIMAL256) continue;
    wide x = 0;
    memcpy(&x, data + (i + offset) * size, (size_t)size);
    if (size < 16) x = size == 4 ? (wide)(int32_t)x : (wide)(int64_t)x;
    int64_t wanted;
    const int32_t kind = exact(x, scale, &wanted);
    REQUIRE(found == kind, "decimal");
    REQUIRE(kind > DIN_FITS_UINT64 || out[0] == wanted, "decimal");
    if (kind == DIN_FITS_INT64) REQUIRE(rounded[i] == (double)wanted, "decimal");
  }
}

/* ----------------------------------------------------------------------------- windows */

static void try_windows(input *in) {
  const int64_t rows = 1 + take(in) % 20, width = take(in) % 12;
  const int is_newest = take(in) & 1, how = take(in) % 3;
  int64_t *offsets = give(in, (size_t)(rows + 1) * 8);
  int64_t *kept = give(in, (size_t)rows * 8), *skip = give(in, (size_t)rows * 8);
  int64_t *start = give(in, (size_t)rows * 8);
  offsets[0] = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t size = draw(in) % ((draw(in) & 15) == 0 ? 300 : 9);
    offsets[r + 1] = offsets[r] + size;
    skip[r] = how == 1 ? draw(in) % (size + 1) : 0;
    kept[r] = draw(in) % (size - skip[r] + 1);
  }
  const int64_t total = offsets[rows];
  int64_t *values = give(in, (size_t)total * 8),
          *positions = give(in, (size_t)total * 8);
  fill_numbers(in, (uint8_t *)values, total * 8, 8);
  for (int64_t r = 0; r < rows; ++r) { /* some of the positions, in their order */
    int64_t at = 0;
    start[r] = offsets[r];
    for (int64_t i = 0; how == 2 && at < kept[r]; ++i) {
      const int64_t left = offsets[r + 1] - offsets[r] - i;
      if (left <= kept[r] - at || (draw(in) & 1)) positions[start[r] + at++] = i;
    }
  }
  const int64_t count = (total + 7) / 8;
  uint8_t *validity = take(in) & 1 ? give(in, (size_t)count) : NULL;
  if (validity != NULL) fill_bytes(in, validity, count);
  din_column c = {
      .nesting = DIN_LIST64,
      .num_rows = rows,
      .offsets = offsets,
      .values = {
          .type = DIN_INT64, .length = total, .data = values, .validity = validity}};
  din_encoder e = {.type = DIN_ENCODE_HASH,
                   .reads = DIN_READS_INT64,
                   .hash = pick(in, DIN_NUM_HASHES),
                   .num_rows = 1000,
                   .prefix = {(const uint8_t *)"", 0}};
  din_prepare_reduction(DIN_REDUCE_OFFSET, e.hash, 1000, &e.reduction);
  din_window w = {.width = width, .newest_first = is_newest, .kept = kept};
  if (how == 1) w.skip = skip;
  if (how == 2) w.positions = positions, w.position_start = start;
  int64_t *ids = give(in, (size_t)(rows * width) * 8);
  int64_t *wanted = give(in, (size_t)(rows * width) * 8);
  din_column one = {.nesting = DIN_SCALAR, .num_rows = total, .values = c.values};
  int64_t *each = give(in, (size_t)total * 8);
  int64_t nulls = 0;
  e.isa = baseline();
  for (int64_t i = 0; i < total; ++i) {
    din_tally tally = {0};
    din_encode_scalars(&one, &e, NULL, i, i + 1, each, &tally);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t n = kept[r] < width ? kept[r] : width;
    for (int64_t t = 0; t < width; ++t) {
      /* the newest are the last, or the first, and stand in order of time */
      int64_t i = is_newest ? n - 1 - t : kept[r] - n + t;
      wanted[r * width + t] = 0;
      if (t >= n) continue;
      i = how == 2 ? positions[start[r] + i] : skip[r] + i;
      wanted[r * width + t] = each[offsets[r] + i];
      nulls += !din_is_valid(&c.values, offsets[r] + i);
    }
  }
  for (int j = 0; j < num_isas && width > 0; ++j) {
    din_tally tally = {0};
    const int64_t cut = draw(in) % (rows + 1);
    e.isa = isas[j];
    din_encode_lists(&c, &e, NULL, &w, 0, cut, ids, &tally);
    din_encode_lists(&c, &e, NULL, &w, cut, rows, ids, &tally);
    REQUIRE(tally.fault == DIN_FINE && tally.nulls == nulls, isas[j]->name);
    REQUIRE(memcmp(ids, wanted, (size_t)(rows * width) * 8) == 0, isas[j]->name);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const ways[])(input *) = {try_keys, try_ints,       try_reduce,
                                          try_rows, try_vocabulary, try_decimals,
                                          try_pad,  try_windows};
  input in;
  open_input(&in, data, size);
  ways[take(&in) % 8](&in);
  close_input(&in);
  return 0;
}
