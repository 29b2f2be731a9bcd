/* Memory of many pages. */
#ifndef DIN_PAGES_H
#define DIN_PAGES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Allocate memory that is 0, to be freed by free(); NULL when there is none.
 *
 * From 4 MiB on it is in huge pages where the system gives them: what is read here and
 * there finds its addresses translated, and what is new takes a fault per 2 MiB.
 */
void *din_allocate_pages(uint64_t num_bytes);

#ifdef __cplusplus
}
#endif

#endif /* DIN_PAGES_H */
