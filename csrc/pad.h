/*
 * Ragged -> right-padded rows of ids; kernels cannot fail, the caller owns every
 * buffer.
 */
#ifndef DIN_PAD_H
#define DIN_PAD_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Pad each row with 0 to width entries, keeping the newest (last) ones.
 *
 *   values   [offsets[num_rows]]   all rows, concatenated, oldest entry first
 *   offsets  [num_rows + 1]        row b is values[offsets[b] .. offsets[b + 1])
 *   padded   [num_rows, width]     written whole, row major
 *   lengths  [num_rows]            written whole: entries kept
 *
 * @pre offsets[0] >= 0 and offsets is non-decreasing; num_rows >= 0, width >= 0
 * @pre no output overlaps an input or the other output
 */
void din_pad_int64(const int64_t *values, const int64_t *offsets, int64_t num_rows,
                   int64_t width, int64_t *padded, int64_t *lengths);

#ifdef __cplusplus
}
#endif

#endif /* DIN_PAD_H */
