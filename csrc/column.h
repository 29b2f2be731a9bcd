/*
 * A C view of one chunk of a column, laid out as Arrow lays it out, and its checks.
 *
 * A view borrows every pointer. Elements are counted from `offset`, so element i of a
 * `din_values` lies at i + offset in its buffers. Pointers may be unaligned.
 *
 * Another thread may write to the buffers after they were checked. So whatever leads to
 * another place (offsets, sizes, views, dictionary indices) is compared with its limits
 * once more where it is read: what is outside by then reads as empty or null.
 */
#ifndef DIN_COLUMN_H
#define DIN_COLUMN_H

#include <stdint.h>

#include "block.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  DIN_SCALAR, /* row r is element r */
  DIN_LIST32,
  DIN_LIST64,
  DIN_LIST_VIEW32,
  DIN_LIST_VIEW64,
  DIN_FIXED_LIST
};

enum {
  DIN_NULL,  /* no buffers: every element is null */
  DIN_BOOL,  /* a bitmap */
  DIN_BOOL8, /* a byte: true is any but 0 */
  DIN_INT8,
  DIN_INT16,
  DIN_INT32,
  DIN_INT64,
  DIN_UINT8,
  DIN_UINT16,
  DIN_UINT32,
  DIN_UINT64,
  DIN_FLOAT16,
  DIN_FLOAT32,
  DIN_FLOAT64,
  DIN_DECIMAL32, /* integers, divided by 10^scale */
  DIN_DECIMAL64,
  DIN_DECIMAL128,
  DIN_DECIMAL256,
  DIN_BYTES32,     /* offsets int32 in data, bytes in bytes */
  DIN_BYTES64,     /* offsets int64 in data, bytes in bytes */
  DIN_BYTES_VIEW,  /* 16-byte views in data, long bytes in buffers */
  DIN_BYTES_FIXED, /* `width` bytes each in data */
  DIN_UUID_TEXT    /* 16 bytes each in data, read as their canonical text */
};

/* Bytes of a view up to which they stand in the view itself. */
enum { DIN_VIEW_INLINE = 12 };

/* Bytes of a UUID, and of its text. */
enum { DIN_UUID_BYTES = 16, DIN_UUID_LETTERS = 36 };

typedef struct {
  int32_t type;
  int64_t length;
  int64_t offset;
  const uint8_t *validity; /* bitmap, or NULL: no nulls */
  const void *data;
  const uint8_t *bytes;
  int64_t num_bytes; /* of `bytes`, as far as checked offsets say how many there are */
  const void *const *buffers;
  const uint8_t *buffer_sizes; /* int64 each */
  int64_t num_buffers;
  int32_t scale; /* of decimals */
  int32_t width; /* of DIN_BYTES_FIXED */
} din_values;

/*
 * With a dictionary, `values` holds its indices. The row members (offset, validity,
 * offsets, sizes, list_size) are not read for DIN_SCALAR.
 */
typedef struct {
  int32_t nesting;
  int32_t has_dictionary;
  int64_t num_rows;
  int64_t offset;
  const uint8_t *validity;
  const void *offsets;
  const void *sizes;
  int64_t list_size;
  din_values values;
  din_values dictionary;
} din_column;

/*
 * Find the elements [*first, *stop) that the rows refer to.
 *
 * Returns -1, or the first row that does not lie inside the values.
 *
 * @pre num_rows >= 0; offset + num_rows fits; the row buffers that the nesting needs
 * hold offset + num_rows (+ 1 for list) entries; values.length is true
 */
int64_t din_check_rows(const din_column *column, int64_t *first, int64_t *stop);

/*
 * Check that elements [first, stop) lie inside their buffers, as far as Arrow says how
 * long those are; `num_bytes` becomes at least where they end. Returns -1, or the first
 * element that does not.
 *
 * @pre 0 <= first <= stop <= length, and data holds offset + stop fixed-width entries
 *      (+ 1 for offsets)
 */
int64_t din_check_values(din_values *values, int64_t first, int64_t stop,
                         const din_block_isa *isa);

/*
 * Check that the indices [first, stop) lie inside the dictionary, and its entries in
 * their buffers. Returns -1, or the first index that does not.
 *
 * @pre as din_check_values, for both
 */
int64_t din_check_indices(din_column *column, int64_t first, int64_t stop,
                          const din_block_isa *isa);

/* Write the number of elements of each row; a null row has none. @pre rows checked */
void din_row_lengths(const din_column *column, int64_t *lengths);

/*
 * Find element and number of elements of a row.
 *
 * @pre 0 <= row < num_rows; rows checked
 */
void din_row_bounds(const din_column *column, int64_t row, int64_t *start,
                    int64_t *count);

/* Count elements in [first, stop) that are not null and not NaN. @pre values checked */
int64_t din_count_valid(const din_column *column, int64_t first, int64_t stop);

/* Count rows that are not null (for scalars: as din_count_valid). @pre rows checked */
int64_t din_count_valid_rows(const din_column *column);

#ifdef __cplusplus
}
#endif

#endif /* DIN_COLUMN_H */
