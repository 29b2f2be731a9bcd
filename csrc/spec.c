/* The sections of a spec -> parts, ids, readings and sources.
   Above 400 lines: the sections of the format, which refer to each other. */
#include "spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec_parsing.h"

enum { MOST = 1 << 16 }; /* of fields, columns, .. of one spec */

typedef struct {
  const char *name;
  din_embedded embedded;
} owner; /* of a table that later fields may share */

typedef struct {
  din_parser p;
  owner *owners;
  int32_t num_owners;
  const char **names; /* of all parts and their columns so far */
  int32_t num_names;
} sections;

/* ------------------------------------------------------------------------ memory */

typedef struct din_owned {
  struct din_owned *next;
  void *memory;
  din_vocab *vocab; /* or this, to be freed by its own function */
} din_owned;

static int keep(din_features *f, void *memory, din_vocab *vocab) {
  din_owned *entry = malloc(sizeof *entry);
  if (entry == NULL) return 0;
  *entry = (din_owned){f->owned, memory, vocab};
  f->owned = entry;
  return 1;
}

void *din_own(din_features *f, uint64_t num_bytes) {
  void *memory = calloc(1, num_bytes == 0 ? 1 : num_bytes);
  if (memory != NULL && !keep(f, memory, NULL)) {
    free(memory);
    return NULL;
  }
  return memory;
}

int din_own_vocab(din_features *f, din_vocab *vocab) {
  if (keep(f, NULL, vocab)) return 1;
  din_free_vocab(vocab);
  return 0;
}

void din_features_free(din_features *f) {
  if (f == NULL) return;
  for (din_owned *next, *o = f->owned; o != NULL; o = next) {
    next = o->next;
    if (o->vocab != NULL) din_free_vocab(o->vocab);
    free(o->memory);
    free(o);
  }
  free(f->sources);
  free(f->readings);
  free(f->ids);
  free(f->parts);
  free(f->outputs);
  free(f);
}

/* Append to an array that grows; NULL and an error when it cannot. */
static void *append(din_parser *p, void **array, int32_t *count, size_t size) {
  const int32_t n = *count;
  void *more = *array;
  if (n == MOST) {
    din_parse_fail(p, NULL, "spec", "fewer fields", NULL);
    return NULL;
  }
  if ((n & (n - 1)) == 0) more = realloc(*array, size * (n == 0 ? 1 : 2 * (size_t)n));
  if (more == NULL) {
    din_parse_fail(p, NULL, "spec", "memory for it", NULL);
    return NULL;
  }
  *array = more;
  ++*count;
  return memset((char *)more + size * (size_t)n, 0, size);
}

#define APPEND(p, f, array, count) \
  append(p, (void **)&(f)->array, &(f)->count, sizeof *(f)->array)

/* ----------------------------------------------------------------- sources, ids */

static int32_t find_source(din_parser *p, const din_source *wanted) {
  din_features *f = p->features;
  for (int32_t i = 0; i < f->num_sources; ++i) {
    din_source *s = &f->sources[i];
    if (s->side != wanted->side || strcmp(s->name, wanted->name) != 0) continue;
    const int are_numbers =
        s->reads != DIN_READS_BYTES && wanted->reads != DIN_READS_BYTES;
    s->is_mixed |= s->is_list != wanted->is_list || s->size != wanted->size;
    s->is_mixed |= s->reads != wanted->reads && !are_numbers;
    s->is_mixed |= s->written != wanted->written;
    if (are_numbers && wanted->reads == DIN_READS_INT64) s->reads = DIN_READS_INT64;
    s->is_optional &= wanted->is_optional;
    s->is_length &= wanted->is_length;
    return i;
  }
  din_source *made = APPEND(p, f, sources, num_sources);
  if (made == NULL) return 0;
  *made = *wanted;
  return f->num_sources - 1;
}

static int32_t add_output(din_parser *p, const char *name, int32_t type, int32_t side,
                          int32_t rank) {
  din_output_kind *made = APPEND(p, p->features, outputs, num_outputs);
  if (made != NULL) *made = (din_output_kind){name, type, side, rank};
  return p->features->num_outputs - 1;
}

/* Add the ids of one field, whose columns the section names. */
static void add_ids(sections *all, const din_section *s, din_part *part,
                    const char *name, const din_embedded *embedded,
                    const din_source *like, int32_t rank) {
  din_parser *p = &all->p;
  din_features *f = p->features;
  din_ids *ids = APPEND(p, f, ids, num_ids);
  if (ids == NULL) return;
  const int32_t count = embedded->num_columns ? embedded->num_columns : 1;
  *ids = (din_ids){name, f->num_readings, count, 0, embedded->rows};
  ids->output = add_output(p, name, DIN_INT64_OUTPUT, part->side, rank);
  ++part->num_ids;
  for (int32_t i = 0; i < count && !p->failed; ++i) {
    din_source source = *like;
    din_reading reading = {0, embedded->dtype, embedded->uuid_as, embedded->encoder};
    if (embedded->num_columns) {
      const din_chained *c = &embedded->columns[i];
      reading = (din_reading){0, c->dtype, c->uuid_as, c->encoder};
      source.name = c->name;
    } else {
      source.name = din_take_text(p, s, "column", name, 0);
    }
    source.side = part->side;
    source.reads = reading.reads;
    source.size = 1;
    reading.source = find_source(p, &source);
    din_reading *made = APPEND(p, f, readings, num_readings);
    if (made != NULL) *made = reading;
  }
}

/* Read `columns` of a section, if it has them, into the embedded. */
static void parse_columns(din_parser *p, const din_section *s, din_embedded *e,
                          int is_shared) {
  static const char *const keys[] = {"column",   "dtype",   "int_as",
                                     "float_as", "uuid_as", NULL};
  const din_json *given = din_take(p, s, "columns", DIN_JSON_LIST, 0);
  if (p->failed) return;
  if (given == NULL) {
    if (e->num_columns) {
      din_parse_fail(p, s, "columns", "columns, as the field it shares has", NULL);
    }
    return;
  }
  const int64_t count = given->size;
  if (count < 1 || count > MOST || (is_shared && count != e->num_columns)) {
    din_parse_fail(p, s, "columns", "as many columns as are hashed together", NULL);
    return;
  }
  din_chained *chained =
      din_own(p->features, (uint64_t)count * (uint64_t)sizeof *chained);
  if (chained == NULL) {
    din_parse_fail(p, s, "columns", "memory for them", NULL);
    return;
  }
  if (!is_shared &&
      (strcmp(e->type, "hash") != 0 || e->encoder.has_mask || e->encoder.has_sign ||
       e->encoder.prefix.num_bytes > 0 || e->encoder.hash == DIN_HASH_FARMHASH_64 ||
       e->encoder.hash == DIN_HASH_SIPHASH_24 ||
       e->encoder.hash == DIN_HASH_MURMUR3_32_VW)) {
    din_parse_fail(p, s, "columns", "a hash that can be seeded beside them", NULL);
  }
  int64_t i = 0;
  for (const din_json *item = given->first; item != NULL; item = item->next, ++i) {
    if (is_shared) chained[i] = e->columns[i];
    if (item->kind == DIN_JSON_STRING) {
      chained[i].name = din_own_text(p, item->text, item->size);
      if (is_shared) continue;
    } else if (is_shared || item->kind != DIN_JSON_TABLE) {
      din_parse_fail(p, s, "columns", "a string", item);
      return;
    }
    const din_section one = din_section_at(s, "columns", item);
    int32_t dtype = e->dtype;
    if (item->kind == DIN_JSON_TABLE) {
      din_check_keys(p, &one, keys);
      chained[i].name = din_take_text(p, &one, "column", NULL, 1);
      dtype = din_take_choice(p, &one, "dtype", DIN_DTYPES, e->dtype);
    }
    din_parse_key_form(p, &one, dtype, e, &chained[i]);
    din_encoder *encoder = &chained[i].encoder;
    encoder->is_seeded = 1;
    if (din_hash_has_32_bits(encoder->hash)) encoder->seed |= DIN_FIRST_SEED;
    if (i + 1 < count) encoder->reduction.kind = DIN_REDUCE_RAW;
  }
  if (!is_shared) e->dtype = chained[0].dtype;
  e->columns = chained;
  e->num_columns = (int32_t)count;
}

/* Read the table of a field: its own, or the one that it shares. */
static din_embedded parse_embedded(sections *all, const din_section *s,
                                   const char *shares) {
  din_parser *p = &all->p;
  din_embedded e;
  memset(&e, 0, sizeof e);
  shares = din_take_text(p, s, "shares", shares, 0);
  const int dtype = din_take_choice(p, s, "dtype", DIN_DTYPES, -1);
  if (p->failed) return e;
  if (shares == NULL) {
    din_parse_encoder(p, s, dtype, &e);
    if (!p->failed) parse_columns(p, s, &e, 0);
    return e;
  }
  for (int32_t i = all->num_owners - 1; i >= 0; --i) {
    if (strcmp(all->owners[i].name, shares) != 0) continue;
    e = all->owners[i].embedded;
    if (dtype >= 0 && dtype != e.dtype) {
      din_parse_fail(p, s, "dtype", "the dtype of the shared table", NULL);
    }
    if (din_json_member(s->json, "encoder") != NULL) {
      din_parse_fail(p, s, "encoder", "no encoder beside a shared table", NULL);
    }
    parse_columns(p, s, &e, 1);
    return e;
  }
  din_parse_fail(p, s, "shares", "an earlier field with a table",
                 din_json_member(s->json, "shares"));
  return e;
}

static void add_owner(sections *all, const char *name, const din_embedded *embedded) {
  owner *made = append(&all->p, (void **)&all->owners, &all->num_owners, sizeof *made);
  if (made != NULL) *made = (owner){name, *embedded};
}

static din_part *add_part(sections *all, int32_t kind, int32_t side, const char *name) {
  din_part *part = APPEND(&all->p, all->p.features, parts, num_parts);
  if (part == NULL) return NULL;
  part->kind = kind;
  part->side = side;
  part->name = name;
  part->first_ids = all->p.features->num_ids;
  part->lengths_source = -1;
  return part;
}

/* --------------------------------------------------------------------- sections */

#define EMBEDDED "name", "dtype", "shares", "encoder", "dim", "padding_row"
#define COLUMNS "column", "columns"
#define LISTS "max_len", "padding", "pad_value", "pad_inside", "length_column"
#define TEXT "separator", "format"

/* Take a name that no part before has, and that is no name of the graph's own. */
static void claim(sections *all, const din_section *s, const char *key,
                  const din_json *given) {
  static const char *const reserved[] = {"request_of_candidate", "logit", "score"};
  din_parser *p = &all->p;
  if (given->size == 0 || memchr(given->text, 0, (size_t)given->size) != NULL) {
    din_parse_fail(p, s, key, "a string of at least one character, none of them 0",
                   given);
  } else if (strpbrk(given->text, ".[]") != NULL) {
    din_parse_fail(p, s, key, "a name without '.', '[' or ']'", given);
  }
  for (int i = 0; i < 3; ++i) {
    if (strcmp(given->text, reserved[i]) != 0) continue;
    din_parse_fail(p, s, key, "a name that is not reserved", given);
  }
  for (int32_t i = 0; i < all->num_names && !p->failed; ++i) {
    if (strcmp(given->text, all->names[i]) != 0) continue;
    din_parse_fail(p, s, key, "a name not used before", given);
  }
  if (p->failed) return;
  const char **name =
      append(p, (void **)&all->names, &all->num_names, sizeof *all->names);
  if (name != NULL) *name = given->text; /* the JSON outlives the sections */
}

static const char *name_of(sections *all, const din_section *s) {
  const din_json *given = din_take(&all->p, s, "name", DIN_JSON_STRING, 1);
  if (given == NULL) return NULL;
  claim(all, s, "name", given);
  return din_own_text(&all->p, given->text, given->size);
}

static void parse_field(sections *all, const din_section *s, int32_t side) {
  static const char *const keys[] = {EMBEDDED, COLUMNS, NULL};
  din_parser *p = &all->p;
  const din_source like = {.size = 1};
  din_check_keys(p, s, keys);
  const char *name = name_of(all, s);
  const din_embedded e = parse_embedded(all, s, NULL);
  if (p->failed) return;
  din_part *part = add_part(all, DIN_PART_FIELD, side, name);
  if (part == NULL) return;
  add_ids(all, s, part, name, &e, &like, 1);
  add_owner(all, name, &e);
}

/* A derived field has no column; but others may share its table. */
static void parse_derived(sections *all, const din_section *s) {
  static const char *const keys[] = {EMBEDDED,  "from",  "lookup", "weights",
                                     "pooling", "empty", NULL};
  din_check_keys(&all->p, s, keys);
  const char *name = name_of(all, s);
  const din_embedded e = parse_embedded(all, s, NULL);
  if (!all->p.failed) add_owner(all, name, &e);
}

static void parse_text(din_parser *p, const din_section *s, din_source *like) {
  static const char *const forms[] = {"json", NULL};
  const char *separator = din_take_text(p, s, "separator", NULL, 0);
  const int form = din_take_choice(p, s, "format", forms, -1);
  if (separator != NULL) {
    like->written = DIN_TEXT_SEPARATED;
    like->separator = (din_key){(const uint8_t *)separator, (int64_t)strlen(separator)};
  } else if (form == 0) {
    like->written = DIN_TEXT_JSON;
    like->separator = (din_key){NULL, 0};
  }
}

static void parse_lists(sections *all, const din_section *s, din_part *part,
                        int32_t dtype) {
  static const char *const paddings[] = {"masked", "attended", NULL};
  static const char *const insides[] = {"kept", "dropped", NULL};
  din_parser *p = &all->p;
  part->max_len = din_take_size(p, s, "max_len", -1);
  part->is_attended = din_take_choice(p, s, "padding", paddings, 0);
  part->drops_pad = din_take_choice(p, s, "pad_inside", insides, 0);
  const din_json *pad = din_json_member(s->json, "pad_value");
  if (pad != NULL) {
    part->has_pad = 1;
    if (pad->kind == DIN_JSON_STRING && dtype == DIN_READS_BYTES) {
      part->pad.data = (const uint8_t *)din_own_text(p, pad->text, pad->size);
      part->pad.num_bytes = pad->size;
    } else if (pad->is_whole && !pad->is_large && dtype != DIN_READS_BYTES) {
      part->pad.number = (int64_t)pad->whole;
    } else {
      din_parse_fail(p, s, "pad_value", "a value of the field's dtype", pad);
    }
  }
  const char *length = din_take_text(p, s, "length_column", NULL, 0);
  if (length != NULL) {
    const din_source source = {.name = length,
                               .side = part->side,
                               .reads = DIN_READS_INT64,
                               .is_length = 1,
                               .size = 1,
                               .is_optional = part->has_pad};
    part->lengths_source = find_source(p, &source);
  }
  char text[DIN_PLACE];
  const int used = snprintf(text, sizeof text, "%.150s.lengths", part->name);
  part->lengths_output =
      add_output(p, din_own_text(p, text, used), DIN_INT64_OUTPUT, part->side, 1);
}

static int is_softmax(din_parser *p, const din_json *attention, int otherwise) {
  if (attention == NULL || attention->kind != DIN_JSON_TABLE) return otherwise;
  const din_section s = {.json = attention};
  return din_take_flag(p, &s, "softmax", otherwise);
}

static void parse_behavior(sections *all, const din_section *s, int softmax) {
  static const char *const keys[] = {"name",  "query",     "fields",        TEXT, LISTS,
                                     "order", "attention", "empty_softmax", NULL};
  static const char *const of_field[] = {EMBEDDED, COLUMNS, TEXT,
                                         "pairs",  "from",  NULL};
  static const char *const orders[] = {"oldest_first", "newest_first", NULL};
  static const char *const empties[] = {"zero", "padding_row", NULL};
  din_parser *p = &all->p;
  din_source default_like = {.size = 1, .is_list = 1};
  din_check_keys(p, s, keys);
  const char *name = name_of(all, s);
  const din_json *fields = din_take(p, s, "fields", DIN_JSON_TABLE, 1);
  parse_text(p, s, &default_like);
  din_part *part = p->failed ? NULL : add_part(all, DIN_PART_LISTS, DIN_USER, name);
  if (part == NULL) return;
  int32_t dtype = -1;
  const int has_query = din_json_member(s->json, "query") != NULL;
  for (const din_json *item = fields->first; item && !p->failed; item = item->next) {
    din_json as_table = {.kind = DIN_JSON_TABLE, .key = item->key};
    din_json pairs = *item;
    din_source like = default_like;
    if (item->kind == DIN_JSON_STRING) {
      pairs.key = has_query ? "shares" : "pairs";
      pairs.key_size = (int64_t)strlen(pairs.key);
      pairs.next = NULL;
      as_table.first = &pairs;
    } else {
      as_table = *item;
    }
    const din_json key = {
        .kind = DIN_JSON_STRING, .text = item->key, .size = item->key_size};
    claim(all, s, item->key, &key);
    const char *column = din_own_text(p, item->key, item->key_size);
    const din_section one = din_section_at(s, item->key, &as_table);
    din_check_keys(p, &one, of_field);
    const char *paired = din_take_text(p, &one, "pairs", NULL, 0);
    const int is_own = din_json_member(&as_table, "encoder") != NULL;
    const din_embedded e = parse_embedded(all, &one, is_own ? NULL : paired);
    if (p->failed) return;
    if (dtype < 0) dtype = e.dtype;
    if (din_json_member(&as_table, "from") != NULL) continue;
    parse_text(p, &one, &like);
    add_ids(all, &one, part, column, &e, &like, 2);
    add_owner(all, column, &e);
  }
  if (p->failed) return;
  if (part->num_ids == 0) {
    din_parse_fail(p, s, "fields", "at least one column", NULL);
    return;
  }
  parse_lists(all, s, part, dtype);
  part->newest_first = din_take_choice(p, s, "order", orders, 0);
  const int of_padding = din_take_choice(p, s, "empty_softmax", empties, 0);
  const din_json *attention = din_json_member(s->json, "attention");
  part->checks_padding =
      of_padding && part->has_pad && is_softmax(p, attention, softmax);
}

static const char *const SIDES[] = {"user", "candidate", NULL};

static void parse_multi_hot(sections *all, const din_section *s) {
  static const char *const keys[] = {EMBEDDED, COLUMNS,   TEXT,    LISTS,
                                     "side",   "pooling", "empty", NULL};
  din_parser *p = &all->p;
  din_source like = {.size = 1, .is_list = 1};
  din_check_keys(p, s, keys);
  const char *name = name_of(all, s);
  const din_embedded e = parse_embedded(all, s, NULL);
  const int side = din_take_choice(p, s, "side", SIDES, -2);
  parse_text(p, s, &like);
  din_part *part = p->failed ? NULL : add_part(all, DIN_PART_LISTS, side, name);
  if (part == NULL) return;
  add_ids(all, s, part, name, &e, &like, 2);
  if (p->failed) return;
  parse_lists(all, s, part, e.dtype);
  add_owner(all, name, &e);
}

static void parse_dense(sections *all, const din_section *s) {
  static const char *const keys[] = {"name",    "column", "side", "dim", "project",
                                     "missing", "scale",  TEXT,   NULL};
  din_parser *p = &all->p;
  din_check_keys(p, s, keys);
  const char *name = name_of(all, s);
  const int side = din_take_choice(p, s, "side", SIDES, -2);
  const int64_t dim = din_take_size(p, s, "dim", 1);
  const char *column = din_take_text(p, s, "column", name, 0);
  din_part *part = p->failed ? NULL : add_part(all, DIN_PART_DENSE, side, name);
  if (part == NULL) return;
  part->dim = dim;
  part->has_missing = din_json_member(s->json, "missing") != NULL;
  part->missing = din_take_number(p, s, "missing", 0.0);
  din_parse_scale(p, s, part);
  din_source source = {
      .name = column, .side = side, .reads = DIN_READS_FLOAT64, .size = dim};
  parse_text(p, s, &source);
  part->source = find_source(p, &source);
  part->output = add_output(p, name, DIN_FLOAT_OUTPUT, side, 2);
}

static void parse_all(sections *all, const din_json *root) {
  static const char *const keys[] = {
      "format",    "label",   "weight",   "group",     "time",  "model",       "user",
      "candidate", "derived", "behavior", "multi_hot", "dense", "calibration", NULL};
  static const char *const lists[] = {"user",     "candidate", "derived",
                                      "behavior", "multi_hot", "dense"};
  din_parser *p = &all->p;
  const din_section spec = {.json = root};
  if (root->kind != DIN_JSON_TABLE) {
    din_parse_fail(p, NULL, "spec", "a table", root);
    return;
  }
  if (din_take_size(p, &spec, "format", -1) != 1) {
    din_parse_fail(p, &spec, "format", "format 1", din_json_member(root, "format"));
  }
  din_check_keys(p, &spec, keys);
  const din_json *model = din_json_member(root, "model");
  const int softmax = is_softmax(p, din_json_member(model, "attention"), 0);
  for (int k = 0; k < 6; ++k) {
    const din_json *list = din_take(p, &spec, lists[k], DIN_JSON_LIST, 0);
    int i = 0;
    for (const din_json *item = list ? list->first : NULL; item && !p->failed;
         item = item->next) {
      char place[40];
      snprintf(place, sizeof place, "%s[%d]", lists[k], i++);
      const din_section s = din_section_at(&spec, place, item);
      if (item->kind != DIN_JSON_TABLE)
        din_parse_fail(p, &spec, place, "a table", item);
      if (p->failed) return;
      if (k < 2) parse_field(all, &s, k);
      if (k == 2) parse_derived(all, &s);
      if (k == 3) parse_behavior(all, &s, softmax);
      if (k == 4) parse_multi_hot(all, &s);
      if (k == 5) parse_dense(all, &s);
    }
  }
}

din_features *din_features_read(const char *json, int64_t size,
                                const din_given_keys *given, int32_t num_given,
                                char *error, size_t error_size) {
  din_json_document *document = din_json_read(json, size, error, error_size);
  if (document == NULL) return NULL;
  din_features *f = calloc(1, sizeof *f);
  sections all = {{f, given, num_given, error, error_size, 0}, NULL, 0, NULL, 0};
  const char *chosen = getenv("DIN_INFER_ISA");
  if (f == NULL) {
    din_parse_fail(&all.p, NULL, "spec", "memory for it", NULL);
  } else if ((f->isa = din_find_block_isa(chosen)) == NULL) {
    din_say(error, error_size, "an instruction set of this machine", chosen,
            "DIN_INFER_ISA", -1, "");
    all.p.failed = 1;
  } else {
    parse_all(&all, din_json_root(document));
  }
  din_json_free(document);
  free(all.owners);
  free((void *)all.names);
  if (!all.p.failed) return f;
  din_features_free(f);
  return NULL;
}
