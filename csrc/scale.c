#include "scale.h"

#include <math.h>
#include <string.h>

/*
 * The algorithm of fdlibm's log1p and log: 1 + x = 2^k * (1 + f), and a polynomial in
 * s = f / (2 + f). The C library's own differs in the last bit from one library, and
 * one processor, to the next.
 */
double din_signed_log1p(double x) {
  const double high = 6.93147180369123816490e-01; /* of ln 2: 21 zero bits at its end */
  const double low = 1.90821492927058770002e-10;
  const double a = fabs(x);
  double f = a; /* 1 + a = 2^k * (1 + f) */
  double k = 0.0;
  double rounding = 0.0; /* what 1 + a lost, relative */
  if (a < 0x1p-53) return x;
  if (a >= 0x1.a827999fcef32p-2) { /* sqrt(2) - 1 */
    double sum = 1.0 + a;
    if (a < 0x1p54) rounding = (a < 1.0 ? a - (sum - 1.0) : 1.0 - (sum - a)) / sum;
    uint64_t bits;
    memcpy(&bits, &sum, sizeof(bits));
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffu) | 0x3ff0000000000000u;
    memcpy(&f, &bits, sizeof(f));   /* in [1, 2) */
    if (f >= 0x1.6a09e667f3bcdp0) { /* sqrt(2) */
      f *= 0.5;
      ++exponent;
    }
    f -= 1.0;
    k = (double)exponent;
  }
  const double half = 0.5 * f * f;
  const double s = f / (2.0 + f);
  const double z = s * s;
  const double w = z * z;
  const double even =
      w * (3.999999999940941908e-01 +
           w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const double odd =
      z * (6.666666666666735130e-01 +
           w * (2.857142874366239149e-01 +
                w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const double log =
      s * (half + odd + even) + (k * low + rounding) - half + f + k * high;
  return x < 0.0 ? -log : log;
}

/* How far x lies in boundaries [count], from 0 at the first to 1 at the last. */
static double quantile_of(const double *boundaries, int64_t count, double x) {
  int64_t below = 1;        /* boundaries <= x, of which the first is one */
  int64_t stop = count - 1; /* and the last is none, so both stay inside */
  if (count < 2 || x < boundaries[0]) return 0.0;
  if (x >= boundaries[count - 1]) return 1.0;
  while (below < stop) {
    const int64_t middle = below + (stop - below) / 2;
    if (boundaries[middle] <= x) {
      below = middle + 1;
    } else {
      stop = middle;
    }
  }
  const double from = boundaries[below - 1];
  const double inside = (x - from) / (boundaries[below] - from);
  return ((double)(below - 1) + inside) / (double)(count - 1);
}

static double scaled(const din_scale *scale, int64_t k, double x) {
  if (!isfinite(x)) return (double)NAN;
  if (scale->kind == DIN_SCALE_QUANTILE) {
    const int64_t start = scale->boundary_start[k];
    return quantile_of(scale->boundaries + start, scale->boundary_start[k + 1] - start,
                       x);
  }
  if (!(scale->divisor[k] > 0.0)) return 0.0;
  if (scale->kind == DIN_SCALE_LOG1P) x = din_signed_log1p(x);
  x = (x - scale->shift[k]) / scale->divisor[k];
  if (scale->kind == DIN_SCALE_MINMAX) x = x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x;
  return x;
}

void din_scale_values(const din_scale *scale, int64_t first, int64_t count,
                      double *values) {
  for (int64_t i = 0; i < count; ++i) {
    values[i] = scaled(scale, first + i, values[i]);
  }
}
