/*
 * The Arrow C data and C stream interfaces, as their specification fixes them. The first is
 * in the public header, which has nothing beside it.
 * https://arrow.apache.org/docs/format/CDataInterface.html
 */
#ifndef DIN_ARROW_ABI_H
#define DIN_ARROW_ABI_H

#include "../din_infer/include/din_encode.h" /* ArrowSchema, ArrowArray */

#ifdef __cplusplus
extern "C" {
#endif

struct ArrowArrayStream {
  int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
  int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
  const char *(*get_last_error)(struct ArrowArrayStream *);
  void (*release)(struct ArrowArrayStream *);
  void *private_data;
};

#ifdef __cplusplus
}
#endif

#endif /* DIN_ARROW_ABI_H */
