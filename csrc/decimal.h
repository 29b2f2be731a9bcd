/*
 * Arrow's decimals: a signed integer of 32, 64, 128 or 256 bits, divided by 10^scale.
 *
 * Exact for any scale and any bits. In a file of their own, so that the loops over other
 * types stay small: inlined there, these cost dense columns of float64 a tenth.
 */
#ifndef DIN_DECIMAL_H
#define DIN_DECIMAL_H

#include <stdint.h>

#include "column.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What an exact number is to a reader of int64. */
enum {
  DIN_FITS_INT64,
  DIN_FITS_UINT64, /* in [2^63, 2^64): `out` has the same 64 bits */
  DIN_FITS_NEITHER,
  DIN_IS_FRACTION
};

/*
 * Read elements [first, first + n) as integers, 0 where valid[i] is 0 (NULL: never).
 *
 * Stops at an element that is no int64, unless it is whole and `wide` is given: then
 * wide[i] becomes its DIN_FITS_.. and out[i] is negative. Returns how many were read;
 * below n, *found is what the next one is.
 *
 * @pre the values are decimals or uint64, and the elements inside them
 */
int64_t din_read_exact(const din_values *values, int64_t first, int64_t n,
                       const uint8_t *valid, int64_t *out, uint8_t *wide,
                       int32_t *found);

/* Round n decimals to the nearest doubles, ties to even. @pre as above, decimals alone */
void din_round_decimals(const din_values *values, int64_t first, int64_t n,
                        double *out);

#ifdef __cplusplus
}
#endif

#endif /* DIN_DECIMAL_H */
