#include "pad.h"

#include <assert.h>
#include <string.h>

void din_pad_int64(const int64_t *values, const int64_t *offsets, int64_t num_rows,
                   int64_t width, int64_t *padded, int64_t *lengths) {
  for (int64_t row = 0; row < num_rows; ++row) {
    assert(offsets[row] <= offsets[row + 1]);
    const int64_t length = offsets[row + 1] - offsets[row];
    const int64_t kept = length < width ? length : width;
    int64_t *out = padded + row * width;
    lengths[row] = kept;
    if (kept > 0) {
      memcpy(out, values + (offsets[row + 1] - kept), (size_t)kept * sizeof *out);
    }
    if (width > kept) {
      memset(out + kept, 0, (size_t)(width - kept) * sizeof *out);
    }
  }
}
