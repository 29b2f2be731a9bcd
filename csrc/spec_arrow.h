/* A column of Arrow's C data interface -> a checked view: kernels/arrow.pxi without
   Python. */
#ifndef DIN_SPEC_ARROW_H
#define DIN_SPEC_ARROW_H

#include "arrow_abi.h"
#include "spec.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows, or elements, of one column: their sizes in bytes still fit. */
#define DIN_MAX_ROWS (INT64_MAX / 64)

/*
 * View rows [skipped, skipped + num_rows) of an array; no value is copied. 0, or -1 and a
 * sentence that names the column. A type that no field reads is DIN_KIND_OTHER. In either
 * case out->memory is to be freed.
 *
 * @pre schema and array are as the specification has them, but for their sizes
 */
int din_view_arrow(const struct ArrowSchema *schema, const struct ArrowArray *array,
                   int64_t skipped, int64_t num_rows, const char *name,
                   const din_block_isa *isa, din_view *out, char *error,
                   size_t error_size);

#ifdef __cplusplus
}
#endif

#endif /* DIN_SPEC_ARROW_H */
