/*
 * Logits -> scores: the link of a model, after its calibration. Kernels cannot fail;
 * the caller owns every buffer.
 */
#ifndef DIN_LINK_H
#define DIN_LINK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DIN_LINK_NONE, DIN_LINK_IDENTITY, DIN_LINK_SIGMOID };

/*
 * Put scores in the place of logits: 1 / (1 + exp(-z)), or z, of z = scale * logit +
 * offset, computed in double and rounded once. DIN_LINK_NONE leaves the logits.
 *
 *   values  [count]  logits; scores where the result is `count`
 *
 * Returns the first row whose logit or score is not finite, else count. From that row
 * on, values are as they were.
 */
int64_t din_link(float *values, int64_t count, int32_t link, double scale,
                 double offset);

#ifdef __cplusplus
}
#endif

#endif /* DIN_LINK_H */
