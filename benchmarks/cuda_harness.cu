/* LocalActivation's kernels behind a plain C API, for benchmarks/cuda.py: no ONNX
   Runtime, two hidden layers with Dice, no softmax. */
#include <string.h>

#include <vector>

#include "cuda.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

typedef std::vector<float> floats;

int64_t padded(int64_t units) { return (units + 7) / 8 * 8; }

floats pad(const float *src, int64_t in, int64_t out, float factor, float offset) {
  floats made(size_t(in * padded(out)), 0.0f);
  for (int64_t i = 0; i < in; i++) {
    for (int64_t j = 0; j < out; j++) {
      made[size_t(i * padded(out) + j)] = src[i * out + j] * factor + offset;
    }
  }
  return made;
}

}  // namespace

/* hidden: H1, H2; weights: query, behavior, product [D, H1]; then of each hidden layer
   bias, Dice's scale, shift, alpha, and the next layer's weight; the last bias. */
EXPORT const char *harness_create(int64_t width, const int64_t *hidden,
                                  int64_t num_fields,
                                  const float *const *weights, int precision,
                                  din_cuda_attention **out) {
  const float log2e = 1.44269504088896341f;
  const int64_t slots[] = {0, 1, 2, 3};
  floats first[3], vectors[2][5], second, dot;
  for (int i = 0; i < 3; i++) first[i] = pad(weights[i], width, hidden[0], 1.0f, 0.0f);
  din_layer layers[2] = {};
  const float *const *next = weights + 3;
  for (int l = 0; l < 2; l++, next += 5) {
    const float factors[] = {1.0f, -log2e, -log2e, 1.0f, -1.0f};
    for (int i = 0; i < 5; i++) {
      const float *src = next[i == 4 ? 3 : i];
      vectors[l][i] = pad(src, 1, hidden[l], factors[i], i == 4 ? 1.0f : 0.0f);
    }
    layers[l].in = l ? hidden[0] : width, layers[l].out = hidden[l];
    layers[l].bias = vectors[l][0].data();
    for (int i = 0; i < 4; i++) layers[l].p[i] = vectors[l][1 + i].data();
  }
  second = pad(weights[7], hidden[0], hidden[1], 1.0f, 0.0f);
  dot = pad(weights[12], 1, hidden[1], 1.0f, 0.0f);
  layers[0].weight = first[1].data(), layers[1].weight = second.data();
  din_attention a = {};
  a.num_fields = a.num_slots = a.num_candidate_fields = num_fields;
  a.slots = slots, a.width = width, a.scale = 1.0f;
  a.mlp.num_layers = 2, a.mlp.layers = layers, a.mlp.activation = DIN_DICE;
  a.mlp.dot = dot.data(), a.mlp.dot_bias = weights[13][0];
  a.weight_query = first[0].data(), a.weight_product = first[2].data();
  return din_cuda_attention_create(&a, din_precision(precision), out);
}

EXPORT void harness_destroy(din_cuda_attention *a) { din_cuda_attention_destroy(a); }

/* sizes: N, B, T or V, packed; addresses: request_of_candidate, lengths, interest, then
   of each field ids, candidate ids, table; tables: rows and width of each */
EXPORT const char *harness_run(const din_cuda_attention *a, const int64_t *sizes,
                               void *const *addresses, const int64_t *tables,
                               int64_t num_fields, void *stream) {
  din_cuda_batch b = {};
  b.num_candidates = sizes[0], b.num_requests = sizes[1];
  b.num_positions = sizes[2], b.packed = int(sizes[3]);
  b.request_of_candidate = static_cast<const int64_t *>(addresses[0]);
  b.lengths = static_cast<const int64_t *>(addresses[1]);
  b.interest = static_cast<float *>(addresses[2]);
  for (int64_t f = 0; f < num_fields; f++) {
    void *const *of = addresses + 3 + 3 * f;
    b.ids[f] = static_cast<const int64_t *>(of[0]);
    b.candidate_ids[f] = static_cast<const int64_t *>(of[1]);
    b.tables[f] = {of[2], tables[2 * f], tables[2 * f + 1], 0};
    b.candidate_tables[f] = b.tables[f];
  }
  return din_cuda_attend(a, &b, stream);
}
