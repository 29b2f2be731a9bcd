#include "link.h"

#include <math.h>

int64_t din_link(float *values, int64_t count, int32_t link, double scale,
                 double offset) {
  for (int64_t row = 0; row < count; ++row) {
    if (!isfinite(values[row])) return row;
    if (link == DIN_LINK_NONE) continue;
    double z = scale * (double)values[row] + offset;
    /* exp(-z) may be infinite: the score is then the 0 that it rounds to */
    float score = (float)(link == DIN_LINK_SIGMOID ? 1.0 / (1.0 + exp(-z)) : z);
    if (!isfinite(score)) return row;
    values[row] = score;
  }
  return count;
}
