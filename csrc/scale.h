/*
 * Raw values of a dense field -> what the model reads. Sums, products and
 * quotients of doubles alone, so that every platform has the same bits. Kernels cannot
 * fail; the caller owns every buffer.
 */
#ifndef DIN_SCALE_H
#define DIN_SCALE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  DIN_SCALE_STANDARD, /* (x - shift) / divisor */
  DIN_SCALE_LOG1P,    /* (sign(x) * log1p(|x|) - shift) / divisor */
  DIN_SCALE_MINMAX,   /* (x - shift) / divisor, clipped to [0, 1] */
  DIN_SCALE_QUANTILE  /* where x lies among boundaries, in [0, 1] */
};

/*
 * The constants of K values. A divisor of 0, or a single boundary, makes every x 0.
 *
 *   shift, divisor  [K]       all but DIN_SCALE_QUANTILE
 *   boundaries                those of value k from boundary_start[k] on, rising; what
 *                             others give means nothing
 *   boundary_start  [K + 1]
 */
typedef struct {
  int32_t kind;
  const double *shift;
  const double *divisor;
  const double *boundaries;
  const int64_t *boundary_start;
} din_scale;

/* Return sign(x) * log1p(|x|), within 1 unit in the last place. */
double din_signed_log1p(double x);

/*
 * Scale `count` values in place: values first, first + 1, .. of the K of a row. What is
 * not finite becomes NaN; so may what double does not hold.
 *
 * @pre 0 <= first; first + count <= K
 */
void din_scale_values(const din_scale *scale, int64_t first, int64_t count,
                      double *values);

#ifdef __cplusplus
}
#endif

#endif /* DIN_SCALE_H */
