/*
 * Arrow's decimals: a signed integer of 32, 64, 128 or 256 bits, divided by 10^scale.
 *
 * Both functions are exact: any scale, any bits.
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

/* Read decimal i as an integer. @pre the values are decimals; i is inside them */
int32_t din_decimal_to_int64(const din_values *values, int64_t i, int64_t *out);

/* Round decimal i to the nearest double, ties to even. @pre as above */
double din_decimal_to_double(const din_values *values, int64_t i);

#ifdef __cplusplus
}
#endif

#endif /* DIN_DECIMAL_H */
