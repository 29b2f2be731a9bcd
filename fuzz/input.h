/*
 * A fuzzer's input as a stream of choices, and the memory of one run. Behind its end
 * every choice is 0: the plainest.
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
  struct block *next;
} block;

typedef struct {
  const uint8_t *at, *end;
  uint64_t state; /* of values that nobody chooses one by one */
  int may_lie;
  block *blocks;
} input;

static inline int take(input *in) { return in->at < in->end ? *in->at++ : 0; }

static inline int pick(input *in, int count) {
  return count > 0 ? take(in) % count : 0;
}

/* A value that follows from the choices before it. */
static inline uint32_t draw(input *in) {
  in->state = in->state * UINT64_C(6364136223846793005) + 1442695040888963407u;
  return (uint32_t)(in->state >> 40);
}

static inline void open_input(input *in, const uint8_t *data, size_t size) {
  *in = (input){.at = data, .end = data + size};
  in->may_lie = take(in) & 1;
  in->state = (uint64_t)take(in) + 1;
}

/* Whether to lie here: one time in 16 at most, and never in an honest input. */
static inline int lies(input *in) { return in->may_lie && take(in) >= 240; }

/* Memory of exactly so many bytes, until close_input. */
static inline void *give(input *in, size_t size) {
  block *b = malloc(sizeof *b + sizeof(void *));
  void *made = malloc(size);
  if (b == NULL || made == NULL) abort();
  *(void **)(b + 1) = made;
  b->next = in->blocks;
  in->blocks = b;
  return made;
}

static inline void close_input(input *in) {
  for (block *next, *b = in->blocks; b != NULL; b = next) {
    next = b->next;
    free(*(void **)(b + 1));
    free(b);
  }
  in->blocks = NULL;
}

/* Bytes as the input has them, or drawn. */
static inline void fill_bytes(input *in, uint8_t *out, int64_t size) {
  const int is_raw = take(in) & 1;
  for (int64_t i = 0; i < size; ++i) {
    out[i] = (uint8_t)(is_raw ? take(in) : (int)(draw(in) >> 8));
  }
}

/* Letters that texts, separated or JSON, numbers and UUIDs are made of. */
static inline void fill_text(input *in, uint8_t *out, int64_t size) {
  static const char letters[] = "ab,0;1[]-\"9e.\\n:{}\xC3\xA9 f|";
  static const char uuid[] = "01234567-89ab-cdef-0123-456789abcdef";
  const int how = take(in) % 4;
  for (int64_t i = 0; i < size; ++i) {
    out[i] = (uint8_t)(how == 0   ? 'a' + (int)(draw(in) % 3)
                       : how == 1 ? letters[draw(in) % (sizeof letters - 1)]
                       : how == 2 ? uuid[i % 36]
                                  : take(in));
  }
}

/* Numbers of `width` bytes: small ones, extremes, or bytes of the input. */
static inline void fill_numbers(input *in, uint8_t *out, int64_t size, int width) {
  const int how = take(in) % 4;
  for (int64_t i = 0; i < size; ++i) {
    const int k = (int)(i % width);
    out[i] = (uint8_t)(how == 0   ? (k == 0 ? (int)(draw(in) % 9) : 0)
                       : how == 1 ? (int)(draw(in) >> 8)
                       : how == 2 ? (k == width - 1 ? 0x7F : 0xFF)
                                  : take(in));
  }
}

#endif /* FUZZ_INPUT_H */
