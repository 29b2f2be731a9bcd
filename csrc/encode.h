/*
 * Raw values -> ids, fused with truncation and padding: one pass into the output.
 *
 * Kernels allocate nothing, keep no state and stop at the first value that has no id;
 * what they stopped at stands in `din_tally`, and the rows before are encoded. The caller
 * owns every buffer. Calls for different rows of one column may run at the same time.
 * Letters: B rows of all chunks together, R rows of this chunk, T positions, K values.
 */
#ifndef DIN_ENCODE_H
#define DIN_ENCODE_H

#include <stdint.h>

#include "block.h"
#include "column.h"
#include "column_inline.h"
#include "scale.h"
#include "vocab.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DIN_ENCODE_HASH, DIN_ENCODE_VOCAB, DIN_ENCODE_IDENTITY, DIN_ENCODE_BUCKETIZE };

/* What an encoder reads: keys of bytes, int64, or float64 (bucketize only). */
enum { DIN_READS_BYTES, DIN_READS_INT64, DIN_READS_FLOAT64 };

/* What of a number is hashed: 8 bytes, decimal text (of an integer), or 4 bytes. */
enum { DIN_INT_AS_BYTES, DIN_INT_AS_TEXT, DIN_INT_AS_BYTES4 };

enum { DIN_UNSEEN_ROW, DIN_UNSEEN_MISSING, DIN_UNSEEN_ERROR };

/* Longest key beside a prefix, both together: they are copied side by side. */
enum { DIN_MAX_PREFIXED = 16384 };

/*
 * Set in the seed of a hash of 32 bits, which does not read it: no hash equals the first
 * seed then. MurmurHash3 of no bytes is its seed, if that is 0.
 */
#define DIN_FIRST_SEED (UINT64_C(1) << 32)

/*
 * With `is_seeded`, the ids of the output are seeds: those of the columns before. A null
 * leaves its seed as it is, and is counted where the ids are made (not DIN_REDUCE_RAW),
 * if nothing has changed the seed either.
 */
typedef struct {
  int32_t type;
  int32_t reads;
  int32_t unseen;
  int32_t int_as;
  int32_t hash;
  int32_t is_seeded;
  int32_t has_sign; /* ids of negative hashes, in 32 bits, lie behind all others */
  int32_t has_mask; /* mask_key, or mask_number, is null */
  const din_block_isa *isa;
  uint64_t seed;
  uint64_t second_seed;
  din_key mask_key;
  int64_t mask_number;
  din_key prefix; /* text before each key */
  din_reduction reduction;
  int64_t num_rows; /* of the embedding table */
  din_vocab vocab;
  const double *boundaries; /* [num_boundaries], rising */
  int64_t num_boundaries;
} din_encoder;

enum {
  DIN_FINE,
  DIN_HAS_NO_ID,    /* unseen, and unseen is an error */
  DIN_NOT_WHOLE,    /* a float with a fraction, or infinite */
  DIN_NOT_EXACT,    /* a float so large that integers around it are lost */
  DIN_BEYOND_INT64, /* a whole number that no int64 holds */
  DIN_BEYOND_64,    /* one that no uint64 holds either, where those have a key */
  DIN_BEYOND_INT32, /* one that 4 bytes do not hold, where those are hashed */
  DIN_TOO_LONG,     /* a key that is longer, with its prefix, than DIN_MAX_PREFIXED */
  DIN_IS_MISSING,   /* a dense null, NaN or infinity without a replacement */
  DIN_WRONG_COUNT   /* a dense row of another length */
};

/* Zero it before the first chunk. `bad` is an element, or -1; `count` is how many values
   the row has, of DIN_WRONG_COUNT. */
typedef struct {
  int64_t nulls;
  int64_t unseen;
  int32_t fault;
  int64_t bad_row;
  int64_t bad;
  int64_t count;
} din_tally;

/* What an entry of a dictionary is; DIN_CODE_FAULT + its fault where it has no id. */
enum { DIN_CODE_ID, DIN_CODE_NULL, DIN_CODE_UNSEEN, DIN_CODE_FAULT };

/* The ids of a dictionary's entries, so that each is encoded once. */
typedef struct {
  const int64_t *ids;
  const uint8_t *codes;
  int64_t num_ids;
  int32_t has_special; /* codes other than DIN_CODE_ID */
} din_codes;

/*
 * Which elements of each row are kept; arrays may be NULL (nothing taken off).
 *
 * Row r of the chunk is entry r of the arrays. Without `positions`, elements
 * [skip[r], skip[r] + kept[r]) of the row are the behaviors; with them, elements
 * positions[position_start[r] ...] are. Of those the `width` newest are encoded.
 */
typedef struct {
  int64_t width;
  int32_t newest_first;
  const int64_t *skip;
  const int64_t *kept;
  const int64_t *positions;
  const int64_t *position_start;
} din_window;

/* A pad value to compare with: bytes, or an integer when data is NULL. */
typedef struct {
  const uint8_t *data;
  int64_t num_bytes;
  int64_t number;
} din_pad_value;

/*
 * Encode every entry of the dictionary; faults are remembered, not raised.
 *
 * @pre column has a checked dictionary; ids and codes hold dictionary.length entries
 */
void din_encode_dictionary(const din_column *column, const din_encoder *encoder,
                           int64_t *ids, uint8_t *codes, int32_t *has_special);

/*
 * Encode rows [first, stop) of a scalar column into the same entries of ids [R].
 *
 * @pre column is checked, DIN_SCALAR, and of a type that encoder reads; codes is NULL
 *      or from din_encode_dictionary; 0 <= first <= stop <= R
 */
void din_encode_scalars(const din_column *column, const din_encoder *encoder,
                        const din_codes *codes, int64_t first, int64_t stop,
                        int64_t *ids, din_tally *tally);

/*
 * Encode rows [first, stop) of a list column into the same rows of padded [R, width]:
 * oldest first, right-padded with 0.
 *
 * @pre as din_encode_scalars, for lists; the window lies inside the rows
 */
void din_encode_lists(const din_column *column, const din_encoder *encoder,
                      const din_codes *codes, const din_window *window, int64_t first,
                      int64_t stop, int64_t *padded, din_tally *tally);

/*
 * Clear same[r] of every row in [first, stop) but those that surely hold what the row
 * before them holds; rows whose entry is 0 are not looked at. Returns how many are left.
 *
 * @pre column is checked; 0 <= first <= stop <= R; same holds R entries
 */
int64_t din_mark_repeats(const din_column *column, int64_t first, int64_t stop,
                         uint8_t *same);

/*
 * Find what is left of each row without its leading and trailing pad values:
 * skip [R], kept [R].
 *
 * @pre column is checked and of the pad value's type
 */
void din_trim_rows(const din_column *column, const din_pad_value *pad, int64_t *skip,
                   int64_t *kept);

/*
 * Find the elements of each row that are not the pad value, among its first lengths[r]:
 * positions, of row r from positions[position_start[r]], kept [R] of them.
 *
 * @pre as din_trim_rows; position_start[r] + lengths[r] stays inside positions
 */
void din_drop_pads(const din_column *column, const din_pad_value *pad,
                   const int64_t *lengths, const int64_t *position_start,
                   int64_t *positions, int64_t *kept);

/*
 * Read K values per row, from row `first` on, as float32 [R, K]; replace missing ones
 * when `replace` is set, then scale (NULL: leave as they are). Missing is null, and what
 * is not finite, before or after. Those of row r count weights[r] times; NULL: once.
 *
 * With `raw` [R, K], write the values there instead, null as NaN.
 */
void din_read_dense(const din_column *column, int64_t first, int64_t num_values,
                    int32_t replace, double replacement, const din_scale *scale,
                    const int64_t *weights, float *out, double *raw, din_tally *tally);

/*
 * Read the elements of all rows, one after another, as float64 [size], null as NaN: R of
 * them where column is DIN_SCALAR. @pre checked numbers
 */
void din_read_elements_float64(const din_column *column, int64_t size, double *out);

/* Read scalars, from row `first` on, as int64 [R], null as 0. @pre checked numbers */
void din_read_scalars_int64(const din_column *column, int64_t first, int64_t *out,
                            uint8_t *valid, din_tally *tally);

#ifdef __cplusplus
}
#endif

#endif /* DIN_ENCODE_H */
