#include "decimal.h"

#include <stdio.h>
#include <stdlib.h>

#include "column_inline.h"

static const int64_t TENS[] = {1,
                               10,
                               100,
                               1000,
                               10000,
                               100000,
                               1000000,
                               10000000,
                               100000000,
                               1000000000,
                               10000000000,
                               100000000000,
                               1000000000000,
                               10000000000000,
                               100000000000000,
                               1000000000000000,
                               10000000000000000,
                               100000000000000000,
                               1000000000000000000};
enum { MAX_TENS = 18 };

/* Powers of ten that double holds exactly. */
static const double EXACT_TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
enum { MAX_EXACT_TENS = 22 };

/* Digits of 2^256, and written nine at a time. */
enum { MAX_DIGITS = 78, MAX_WRITTEN = 81 };

/* Sign and magnitude: limbs of 32 bits, the lowest first. */
enum { NUM_LIMBS = 8 };
typedef struct {
  int is_negative;
  uint32_t limbs[NUM_LIMBS];
} number;

static number load(const din_values *v, int64_t i) {
  const int64_t num_limbs = (int64_t)1 << (v->type - DIN_DECIMAL32);
  const int64_t at = (i + v->offset) * num_limbs;
  number x;
  x.is_negative = din_read_i32(v->data, at + num_limbs - 1) < 0;
  const uint32_t sign = x.is_negative ? UINT32_MAX : 0;
  uint64_t carry = sign & 1;
  for (int64_t k = 0; k < NUM_LIMBS; ++k) {
    carry += k < num_limbs ? din_read_ui32(v->data, at + k) ^ sign : 0;
    x.limbs[k] = (uint32_t)carry;
    carry >>= 32;
  }
  return x;
}

static int is_zero(const number *x) {
  uint32_t any = 0;
  for (int k = 0; k < NUM_LIMBS; ++k) any |= x->limbs[k];
  return any == 0;
}

static uint32_t divide(number *x, uint32_t divisor) {
  uint64_t rest = 0;
  for (int k = NUM_LIMBS - 1; k >= 0; --k) {
    rest = rest << 32 | x->limbs[k];
    x->limbs[k] = (uint32_t)(rest / divisor);
    rest %= divisor;
  }
  return (uint32_t)rest;
}

/* Most values are small: whether the integer itself is an int64. */
static int is_narrow(const din_values *v, int64_t i, int64_t *out) {
  const int64_t at = i + v->offset;
  switch (v->type) {
    case DIN_DECIMAL32:
      *out = din_read_i32(v->data, at);
      return 1;
    case DIN_DECIMAL64:
      *out = din_read_i64(v->data, at);
      return 1;
    default: {
      const int64_t num_words = v->type == DIN_DECIMAL128 ? 2 : 4;
      *out = din_read_i64(v->data, at * num_words);
      const int64_t sign = *out < 0 ? -1 : 0;
      int64_t differ = 0;
      for (int64_t k = 1; k < num_words; ++k) {
        differ |= din_read_i64(v->data, at * num_words + k) ^ sign;
      }
      return differ == 0;
    }
  }
}

static int32_t to_int64(const din_values *v, int64_t i, int64_t *out) {
  int64_t narrow;
  if (is_narrow(v, i, &narrow) && v->scale >= 0 && v->scale <= MAX_TENS) {
    *out = narrow / TENS[v->scale];
    return narrow % TENS[v->scale] == 0 ? DIN_FITS_INT64 : DIN_IS_FRACTION;
  }
  number x = load(v, i);
  *out = 0;
  if (is_zero(&x)) return DIN_FITS_INT64;
  if (v->scale >= MAX_DIGITS) return DIN_IS_FRACTION;
  for (int32_t left = v->scale; left > 0; left -= 9) {
    const uint32_t divisor = (uint32_t)TENS[left < 9 ? left : 9];
    if (divide(&x, divisor) != 0) return DIN_IS_FRACTION;
  }
  uint64_t magnitude = (uint64_t)x.limbs[1] << 32 | x.limbs[0];
  for (int k = 2; k < NUM_LIMBS; ++k) {
    if (x.limbs[k] != 0) return DIN_FITS_NEITHER;
  }
  for (int32_t left = v->scale; left < 0; ++left) {
    if (magnitude > UINT64_MAX / 10) return DIN_FITS_NEITHER;
    magnitude *= 10;
  }
  const uint64_t limit = (uint64_t)1 << 63;
  if (x.is_negative && magnitude > limit) return DIN_FITS_NEITHER;
  *out = (int64_t)(x.is_negative ? 0 - magnitude : magnitude);
  return x.is_negative || magnitude < limit ? DIN_FITS_INT64 : DIN_FITS_UINT64;
}

int64_t din_read_exact(const din_values *v, int64_t first, int64_t n,
                       const uint8_t *valid, int64_t *out, uint8_t *wide,
                       int32_t *found) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = 0;
    if (valid != NULL && !valid[i]) continue;
    if (v->type == DIN_UINT64) {
      out[i] = din_read_i64(v->data, first + i + v->offset);
      *found = out[i] < 0 ? DIN_FITS_UINT64 : DIN_FITS_INT64;
    } else {
      *found = to_int64(v, first + i, out + i);
    }
    if (*found == DIN_FITS_INT64) continue;
    if (*found == DIN_IS_FRACTION || wide == NULL) return i;
    wide[i] = (uint8_t)*found;
    if (*found == DIN_FITS_NEITHER) out[i] = -1;
  }
  return n;
}

static double to_double(const din_values *v, int64_t i) {
  const int64_t limit = (int64_t)1 << 53;
  int64_t narrow;
  if (is_narrow(v, i, &narrow) && -limit <= narrow && narrow <= limit &&
      -MAX_EXACT_TENS <= v->scale && v->scale <= MAX_EXACT_TENS) {
    /* of two exact doubles: rounded once */
    return v->scale < 0 ? (double)narrow * EXACT_TENS[-v->scale]
                        : (double)narrow / EXACT_TENS[v->scale];
  }
  /* A whole number and an exponent have no decimal point, which locales change. */
  number x = load(v, i);
  char text[1 + MAX_WRITTEN + 16];
  int at = 1 + MAX_WRITTEN;
  snprintf(text + at, sizeof text - (size_t)at, "e%lld", -(long long)v->scale);
  do {
    uint32_t nine = divide(&x, 1000000000);
    for (int k = 0; k < 9; ++k, nine /= 10) text[--at] = (char)('0' + nine % 10);
  } while (!is_zero(&x));
  if (x.is_negative) text[--at] = '-';
  return strtod(text + at, NULL);
}

void din_round_decimals(const din_values *v, int64_t first, int64_t n, double *out) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_double(v, first + i);
}
