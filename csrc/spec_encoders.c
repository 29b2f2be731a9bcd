/* Encoders and scales of a spec. */
#include <math.h>
#include <string.h>

#include "spec_parsing.h"

const char *const DIN_DTYPES[] = {"string", "int64", "float", NULL};
static const char *const TYPES[] = {"hash", "vocab", "identity", "bucketize", NULL};
static const char *const HASHES[] = {"xxh64",         "xxh3_64",   "murmur3_32",
                                     "farmhash64",    "siphash24", "murmur3_32_spark",
                                     "murmur3_32_vw", NULL};
static const char *const REDUCES[] = {"offset", "mod", "pmod", "abs", NULL};
static const char *const INTS_AS[] = {"bytes", "text", "bytes4", NULL};
static const char *const FLOATS_AS[] = {"bytes", "", "bytes4", NULL};
static const char *const UUIDS_AS[] = {"", "bytes", "text", NULL};
static const char *const UNSEEN[] = {"row", "missing", "error", NULL};
static const char *const SCALES[] = {"standard", "log1p", "minmax", "quantile", NULL};
#define FLOAT32_END 3.4028235677973366e38
enum { MAX_PREFIX = 1000 }; /* characters, as spec_parsing.py has it */

/* Copy rising finite numbers. */
static double *take_rising(din_parser *p, const din_section *s, const char *key,
                           const din_json *list) {
  if (list->kind != DIN_JSON_LIST) {
    din_parse_fail(p, s, key, "a list of numbers", list);
    return NULL;
  }
  double *made = din_own(p->features, (uint64_t)list->size * sizeof *made);
  int64_t n = 0;
  for (const din_json *x = list->first; made != NULL && x != NULL; x = x->next) {
    if (x->kind != DIN_JSON_NUMBER || !isfinite(x->number) ||
        (n > 0 && !(made[n - 1] < x->number))) {
      din_parse_fail(p, s, key, "rising finite numbers", x);
      return NULL;
    }
    made[n++] = x->number;
  }
  if (made == NULL) din_parse_fail(p, s, key, "memory for it", NULL);
  return made;
}

/* ----------------------------------------------------------------------- encoders */

void din_parse_key_form(din_parser *p, const din_section *s, int32_t dtype,
                        const din_embedded *of, din_chained *out) {
  const int is_float = dtype == DIN_READS_FLOAT64;
  out->dtype = dtype;
  out->encoder = of->encoder;
  out->encoder.reads = dtype;
  out->encoder.int_as =
      is_float ? din_take_choice(p, s, "float_as", FLOATS_AS, DIN_INT_AS_BYTES)
               : din_take_choice(p, s, "int_as", INTS_AS, of->encoder.int_as);
  out->uuid_as = dtype != DIN_READS_BYTES
                     ? DIN_UUID_REFUSED
                     : din_take_choice(p, s, "uuid_as", UUIDS_AS, of->uuid_as);
  const int is_vw = out->encoder.hash == DIN_HASH_MURMUR3_32_VW;
  if (!p->failed && (out->encoder.prefix.num_bytes > 0 || is_vw) &&
      dtype != DIN_READS_BYTES && out->encoder.int_as != DIN_INT_AS_TEXT) {
    din_parse_fail(p, s, "int_as", "text", NULL);
  }
}

static uint64_t take_seed(din_parser *p, const din_section *s, const din_json *seed,
                          uint64_t most) {
  if (!seed->is_whole || (!seed->is_large && (int64_t)seed->whole < 0) ||
      seed->whole > most) {
    din_parse_fail(p, s, "seed", "a seed that the hash takes", seed);
  }
  return seed->whole;
}

/* Count the characters of a text, which is UTF-8. */
static int64_t num_characters(const din_json *text) {
  int64_t count = 0;
  for (int64_t i = 0; i < text->size; ++i) count += ((uint8_t)text->text[i] >> 6) != 2;
  return count;
}

static void parse_hash(din_parser *p, const din_section *s, int32_t dtype,
                       din_embedded *out) {
  static const char *const keys[] = {
      "type",   "buckets",    "hash",    "seed",   "reduce",   "alternate_sign",
      "prefix", "mask_value", "uuid_as", "int_as", "float_as", NULL};
  din_encoder *e = &out->encoder;
  din_check_keys(p, s, keys);
  const int64_t buckets = din_take_size(p, s, "buckets", -1);
  const int reduce = din_take_choice(p, s, "reduce", REDUCES, DIN_REDUCE_OFFSET);
  e->hash = din_take_choice(p, s, "hash", HASHES, DIN_HASH_XXH64);
  if (reduce == DIN_REDUCE_OFFSET && buckets < 2) {
    din_parse_fail(p, s, "buckets", "at least 2", NULL);
  }
  const din_json *seed = din_json_member(s->json, "seed");
  if (e->hash == DIN_HASH_SIPHASH_24) {
    if (seed == NULL || seed->kind != DIN_JSON_LIST || seed->size != 2) {
      din_parse_fail(p, s, "seed", "a list of two whole numbers", seed);
      return;
    }
    e->seed = take_seed(p, s, seed->first, UINT64_MAX);
    e->second_seed = take_seed(p, s, seed->first->next, UINT64_MAX);
  } else if (seed != NULL) {
    const int is_short =
        din_hash_has_32_bits(e->hash) || e->hash == DIN_HASH_MURMUR3_32_VW;
    const uint64_t most = e->hash == DIN_HASH_FARMHASH_64 ? 0
                          : is_short                      ? UINT32_MAX
                                                          : UINT64_MAX;
    e->seed = take_seed(p, s, seed, most);
  }
  e->has_sign = din_take_flag(p, s, "alternate_sign", 0);
  if (e->has_sign && (reduce != DIN_REDUCE_ABS || buckets >= 1 << 30)) {
    din_parse_fail(p, s, "alternate_sign", "`reduce = \"abs\"`, below 2**30 buckets",
                   NULL);
  }
  const din_json *prefix = din_take(p, s, "prefix", DIN_JSON_STRING, 0);
  if (prefix != NULL) {
    e->prefix = (din_key){(const uint8_t *)din_own_text(p, prefix->text, prefix->size),
                          prefix->size};
    if (num_characters(prefix) > MAX_PREFIX) {
      din_parse_fail(p, s, "prefix", "at most 1000 characters", NULL);
    }
  } else {
    e->prefix.data = (const uint8_t *)"";
  }
  const din_json *mask = din_json_member(s->json, "mask_value");
  if (mask != NULL) {
    e->has_mask = 1;
    if (mask->kind == DIN_JSON_STRING && dtype == DIN_READS_BYTES) {
      e->mask_key = (din_key){(const uint8_t *)din_own_text(p, mask->text, mask->size),
                              mask->size};
    } else if (mask->is_whole && !mask->is_large && dtype == DIN_READS_INT64) {
      e->mask_number = (int64_t)mask->whole;
    } else {
      din_parse_fail(p, s, "mask_value", "a value of the field's dtype", mask);
    }
  }
  if (p->failed) return;
  out->rows = e->has_sign ? 2 * buckets : buckets;
  din_prepare_reduction(reduce, e->hash, (uint64_t)buckets, &e->reduction);
  din_chained form = {0};
  din_parse_key_form(p, s, dtype, out, &form);
  e->int_as = form.encoder.int_as;
  out->uuid_as = form.uuid_as;
}

/* The keys of the JSON, copied side by side. */
static din_given_keys copy_keys(din_parser *p, const din_section *s,
                                const din_json *values, int32_t dtype) {
  din_given_keys keys = {NULL, NULL, NULL, values->size};
  const int is_text = dtype == DIN_READS_BYTES;
  uint64_t size = 0;
  for (const din_json *v = values->first; v != NULL; v = v->next) {
    if (is_text ? v->kind != DIN_JSON_STRING : !v->is_whole || v->is_large) {
      din_parse_fail(p, s, "values", "values of the field's dtype", v);
      return keys;
    }
    size += is_text ? (uint64_t)v->size : 0;
  }
  int64_t *numbers =
      din_own(p->features, ((uint64_t)values->size + 1) * sizeof *numbers);
  uint8_t *bytes = is_text ? din_own(p->features, size) : NULL;
  if (numbers == NULL || (is_text && bytes == NULL)) {
    din_parse_fail(p, s, "values", "memory for them", NULL);
    return keys;
  }
  int64_t i = 0;
  for (const din_json *v = values->first; v != NULL; v = v->next, ++i) {
    if (is_text) {
      memcpy(bytes + numbers[i], v->text, (size_t)v->size);
      numbers[i + 1] = numbers[i] + v->size;
    } else {
      numbers[i] = (int64_t)v->whole;
    }
  }
  keys.bytes = bytes;
  if (is_text) {
    keys.offsets = numbers;
  } else {
    keys.ints = numbers;
  }
  return keys;
}

static void parse_vocab(din_parser *p, const din_section *s, int32_t dtype,
                        din_embedded *out) {
  static const char *const keys[] = {"type", "values", "unseen", "uuid_as", NULL};
  din_check_keys(p, s, keys);
  din_encoder *e = &out->encoder;
  e->unseen = din_take_choice(p, s, "unseen", UNSEEN, DIN_UNSEEN_ROW);
  if (dtype == DIN_READS_BYTES) {
    out->uuid_as = din_take_choice(p, s, "uuid_as", UUIDS_AS, 0);
  }
  const din_json *values = din_json_member(s->json, "values");
  din_given_keys given = {NULL, NULL, NULL, 0};
  if (values != NULL && values->is_whole && !values->is_large &&
      values->whole < (uint64_t)p->num_given) {
    given = p->given[values->whole];
    const int is_text = dtype == DIN_READS_BYTES;
    if (is_text ? given.offsets == NULL : given.ints == NULL) {
      din_parse_fail(p, s, "values", "keys of the field's dtype", NULL);
      return;
    }
    const int32_t needed = (int32_t)values->whole + 1;
    if (p->features->num_given < needed) p->features->num_given = needed;
  } else if (values != NULL && values->kind == DIN_JSON_LIST) {
    given = copy_keys(p, s, values, dtype);
  } else {
    din_parse_fail(p, s, "values", "a list", values);
  }
  if (p->failed) return;
  const int64_t count = given.num_keys;
  if (count > DIN_MAX_VOCAB ||
      (given.offsets != NULL && given.offsets[count] > UINT32_MAX)) {
    din_parse_fail(p, s, "values", "at most 2**31 - 3 values of 4 GiB in all", NULL);
    return;
  }
  din_vocab *vocab = din_own(p->features, sizeof *vocab);
  if (vocab == NULL) {
    din_parse_fail(p, s, "values", "memory for them", NULL);
    return;
  }
  vocab->isa = p->features->isa;
  vocab->num_keys = count;
  vocab->bytes = count == 0 ? NULL : given.bytes;
  vocab->offsets = count == 0 ? NULL : given.offsets;
  vocab->ints = count == 0 ? NULL : given.ints;
  int64_t earlier = 0;
  const int64_t twice = din_build_vocab(vocab, &earlier);
  if (!din_own_vocab(p->features, vocab) || twice == DIN_VOCAB_NO_MEMORY) {
    din_parse_fail(p, s, "values", "memory for them", NULL);
  } else if (twice != DIN_VOCAB_BUILT) {
    din_parse_fail(p, s, "values", "each value once", NULL);
  }
  e->vocab = *vocab;
  out->rows = count + 2;
}

static void parse_bucketize(din_parser *p, const din_section *s, din_embedded *out) {
  static const char *const keys[] = {"type", "boundaries", NULL};
  din_check_keys(p, s, keys);
  const din_json *boundaries = din_json_member(s->json, "boundaries");
  if (boundaries == NULL || boundaries->kind != DIN_JSON_LIST) {
    din_parse_fail(p, s, "boundaries",
                   boundaries && boundaries->kind == DIN_JSON_TABLE
                       ? "fitted numbers, as din-train writes them into a model"
                       : "a list",
                   boundaries);
    return;
  }
  out->encoder.boundaries = take_rising(p, s, "boundaries", boundaries);
  out->encoder.num_boundaries = boundaries->size;
  out->rows = boundaries->size + 2;
}

void din_parse_encoder(din_parser *p, const din_section *of, int32_t dtype,
                       din_embedded *out) {
  static const int32_t natural[] = {DIN_READS_BYTES, DIN_READS_BYTES, DIN_READS_INT64,
                                    DIN_READS_FLOAT64};
  /* by type: the dtypes that it reads */
  static const int allowed[4][3] = {{1, 1, 1}, {1, 1, 0}, {0, 1, 0}, {0, 1, 1}};
  const din_json *json = din_take(p, of, "encoder", DIN_JSON_TABLE, 1);
  if (json == NULL) return;
  const din_section s = din_section_at(of, "encoder", json);
  din_encoder *e = &out->encoder;
  e->type = din_take_choice(p, &s, "type", TYPES, -2);
  if (p->failed) return;
  out->type = TYPES[e->type];
  if (dtype < 0) dtype = natural[e->type];
  if (!allowed[e->type][dtype]) {
    din_parse_fail(p, of, "dtype", "a dtype that the encoder reads", NULL);
    return;
  }
  out->dtype = e->reads = dtype;
  e->isa = p->features->isa;
  e->prefix.data = (const uint8_t *)"";
  e->unseen = DIN_UNSEEN_ERROR;
  switch (e->type) {
    case DIN_ENCODE_HASH:
      parse_hash(p, &s, dtype, out);
      break;
    case DIN_ENCODE_VOCAB:
      parse_vocab(p, &s, dtype, out);
      break;
    case DIN_ENCODE_IDENTITY: {
      static const char *const keys[] = {"type", "buckets", "unseen", NULL};
      din_check_keys(p, &s, keys);
      out->rows = din_take_size(p, &s, "buckets", -1);
      e->unseen = din_take_choice(p, &s, "unseen", UNSEEN, DIN_UNSEEN_ERROR);
      if (e->unseen == DIN_UNSEEN_ROW) {
        din_parse_fail(p, &s, "unseen", "one of error, missing", NULL);
      }
      break;
    }
    default:
      parse_bucketize(p, &s, out);
  }
  e->num_rows = out->rows;
}

/* ------------------------------------------------------------------------- scales */

/* One finite number, or a list of `dim` of them. */
static double *take_numbers(din_parser *p, const din_section *s, const char *key,
                            int64_t dim) {
  const din_json *given = din_json_member(s->json, key);
  if (given == NULL) {
    din_parse_fail(p, s, key, "fitted numbers, as din-train writes them into a model",
                   NULL);
    return NULL;
  }
  const int is_list = given->kind == DIN_JSON_LIST;
  double *made = din_own(p->features, (uint64_t)dim * sizeof *made);
  int64_t n = 0;
  if (made != NULL && (is_list ? given->size == dim : dim == 1)) {
    for (const din_json *x = is_list ? given->first : given; x != NULL; x = x->next) {
      if (x->kind != DIN_JSON_NUMBER || !isfinite(x->number)) break;
      made[n++] = x->number;
      if (!is_list) break;
    }
  }
  if (n != dim) din_parse_fail(p, s, key, "a finite number of each value", given);
  return made;
}

static void take_quantiles(din_parser *p, const din_section *s, din_scale *scale,
                           int64_t dim) {
  const din_json *given = din_json_member(s->json, "boundaries");
  if (given == NULL || given->kind != DIN_JSON_LIST ||
      (dim > 1 && given->size != dim)) {
    din_parse_fail(p, s, "boundaries",
                   "fitted boundaries of each value, as din-train writes them", given);
    return;
  }
  din_json whole = *given;
  whole.next = NULL;
  const din_json *first = dim > 1 ? given->first : &whole;
  int64_t total = 0, k = 0;
  int64_t *starts = din_own(p->features, ((uint64_t)dim + 1) * sizeof *starts);
  for (const din_json *own = first; own != NULL; own = own->next) {
    if (own->kind == DIN_JSON_LIST) total += own->size;
  }
  double *flat = din_own(p->features, (uint64_t)total * sizeof *flat);
  if (starts == NULL || flat == NULL) {
    din_parse_fail(p, s, "boundaries", "memory for them", NULL);
    return;
  }
  for (const din_json *own = first; own != NULL; own = own->next, ++k) {
    const double *numbers = take_rising(p, s, "boundaries", own);
    if (numbers == NULL) return;
    if (own->size < 1 || !isfinite(numbers[own->size - 1] - numbers[0])) {
      din_parse_fail(p, s, "boundaries", "at least one number of each value", own);
      return;
    }
    memcpy(flat + starts[k], numbers, (size_t)own->size * sizeof *flat);
    starts[k + 1] = starts[k] + own->size;
  }
  scale->boundaries = flat;
  scale->boundary_start = starts;
}

void din_parse_scale(din_parser *p, const din_section *of, din_part *part) {
  static const char *const keys[] = {"type", "mean",       "std",       "min",
                                     "max",  "boundaries", "quantiles", NULL};
  const din_json *json = din_json_member(of->json, "scale");
  if (p->failed) return;
  if (json == NULL ||
      (json->kind == DIN_JSON_STRING && din_json_is(json->text, json->size, "none"))) {
    if (fabs(part->missing) < FLOAT32_END) return;
    din_parse_fail(p, of, "missing", "a number that float32 holds",
                   din_json_member(of->json, "missing"));
    return;
  }
  const din_section s = din_section_at(of, "scale", json);
  din_check_keys(p, &s, keys);
  din_scale *scale = &part->scale;
  part->has_scale = 1;
  scale->kind = p->failed ? 0 : din_take_choice(p, &s, "type", SCALES, -2);
  if (p->failed) return;
  const int is_minmax = scale->kind == DIN_SCALE_MINMAX;
  if (scale->kind == DIN_SCALE_QUANTILE) {
    take_quantiles(p, &s, scale, part->dim);
  } else {
    const char *high_key = is_minmax ? "max" : "std";
    scale->shift = take_numbers(p, &s, is_minmax ? "min" : "mean", part->dim);
    double *high = p->failed ? NULL : take_numbers(p, &s, high_key, part->dim);
    for (int64_t k = 0; !p->failed && k < part->dim; ++k) {
      if (is_minmax) high[k] -= scale->shift[k];
      if (!(high[k] >= 0 && isfinite(high[k]))) {
        din_parse_fail(p, &s, high_key, "a finite number that is not too low", NULL);
      }
    }
    scale->divisor = high;
  }
  if (p->failed || !part->has_missing) return;
  for (int64_t k = 0; k < part->dim; ++k) {
    double missing = part->missing;
    din_scale_values(scale, k, 1, &missing);
    if (!(fabs(missing) < FLOAT32_END)) {
      din_parse_fail(p, of, "scale", "a scale that float32 holds `missing` of", NULL);
    }
  }
}
