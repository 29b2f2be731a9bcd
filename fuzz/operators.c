/*
 * The input chooses an operator, its attributes, constants, inputs and what is wrong with
 * them: another type, size or number of any. The kernel is made and run by the host of
 * tests/host/, in the baseline and in another instruction set: both are to refuse with
 * the same sentence, or to compute the same. Above 400 lines: five operators.
 */
#include <math.h>

#include "../csrc/ops/op.h"
#include "../csrc/spec.h"
#include "../tests/host/ort_host.h"

/* ---- in place of provider_cpu.c ---- */

extern const din_kind din_local_activation, din_embedding_bag, din_guard_op,
    din_tower_op, din_encode_op;

static const din_isa *chosen;

const din_isa *din_chosen_isa(din_op *op) {
  (void)op;
  return chosen;
}
static void check(din_op *op, din_precision precision) { (void)op, (void)precision; }
static const char *const PRECISIONS[DIN_NUM_PRECISIONS] = {[DIN_FP32] = "fp32",
                                                           [DIN_BF16] = "bf16"};
const din_provider DIN_PROVIDER = {.local_activation = &din_local_activation,
                                   .embedding_bag = &din_embedding_bag,
                                   .guard = &din_guard_op,
                                   .tower = &din_tower_op,
                                   .encode = &din_encode_op,
                                   .precisions = PRECISIONS,
                                   .check = check};

/* ---- the input ---- */

static const uint8_t *at, *stop;
static uint64_t noise;
static int truths = 256, prefers_many; /* the latter, of threads_operators.c */

static int byte(void) { return at < stop ? *at++ : 0; }
static int below(int count) { return byte() % count; }
/* What is wrong: never, one time in 64, or, for what takes two such, one in 13. */
static int seldom(void) { return truths < 256 && byte() >= truths; }

/* Weights are not worth bytes of the input: they follow from one. */
static uint64_t draw(void) {
  noise ^= noise << 13, noise ^= noise >> 7, noise ^= noise << 17;
  return noise;
}
static float draw_float(void) { return (float)(int)(draw() % 2001) / 1000.0f - 1.0f; }

static const int64_t INTS[] = {0,         1,         -1,        2,
                               7,         INT32_MAX, INT64_MAX, INT64_MIN,
                               1LL << 40, 1LL << 20, 1LL << 32, -(1LL << 31)};
static const float FLOATS[] = {0.0f, 1.0f, -1.0f, 1e-30f, 3e38f, INFINITY, NAN};
#define PICK(list) ((list)[below((int)(sizeof(list) / sizeof *(list)))])

/* ---- tensors ---- */

enum { MAX_VALUES = 2 * HOST_MAX_INPUTS };
static OrtValue values[MAX_VALUES];
static size_t num_values;
static int is_odd; /* some value is not finite, or large: results are not compared */

/* A tensor with memory of its own; sizes may be changed before, never after. */
static OrtValue *new_value(int type, size_t rank, const int64_t *dims) {
  OrtValue *v = &values[num_values++];
  *v = (OrtValue){.type = type, .rank = rank};
  for (size_t i = 0; i < rank; i++) v->dims[i] = dims[i];
  if (seldom()) v->type = PICK(((const int[]){1, 2, 6, 7, 8, 10, 11, 9, 16}));
  if (rank > 0 && seldom()) v->dims[below((int)rank)] += below(3) - 1;
  if (rank > 0 && seldom()) v->dims[below((int)rank)] = PICK(INTS);
  if (seldom()) { /* sizes of no elements may be anything */
    v->rank = (size_t)below(HOST_MAX_RANK);
    for (size_t i = 0; i < v->rank; i++) {
      if (below(2)) v->dims[i] = PICK(INTS);
    }
  }
  int64_t bytes = host_bytes(v);
  if (bytes < 0 || bytes > 1 << 16) {
    /* no file has so many bytes; of none, sizes may be anything */
    v->dims[v->rank - 1] = 0;
    bytes = 0;
    for (size_t i = 0; i < v->rank; i++) {
      if (v->dims[i] < 0) v->dims[i] = 0;
    }
  }
  v->data = host_allocate((size_t)bytes);
  if (bytes) memset(v->data, 0, (size_t)bytes);
  v->text_bytes = (size_t)bytes; /* texts: as many empty ones */
  return v;
}

static OrtValue *new_reals(int type, size_t rank, int64_t a, int64_t b) {
  const int64_t dims[2] = {a, b};
  OrtValue *v = new_value(type, rank, dims);
  const int64_t count = host_count(v);
  for (int64_t i = 0; v->type == ORT_FLOAT && i < count; i++) {
    ((float *)v->data)[i] = draw_float();
  }
  for (int64_t i = 0; v->type == ORT_FLOAT16 && i < count; i++) {
    ((uint16_t *)v->data)[i] = (uint16_t)(0x3000 + draw() % 0x0C00);
  }
  if (v->type == ORT_FLOAT && count > 0 && seldom()) {
    ((float *)v->data)[draw() % (uint64_t)count] = PICK(FLOATS);
    is_odd = 1;
  }
  return v;
}

static OrtValue *new_floats(size_t rank, int64_t a, int64_t b) {
  return new_reals(seldom() ? ORT_FLOAT16 : ORT_FLOAT, rank, a, b);
}

/* An embedding table: half, too. */
static OrtValue *new_table(int64_t rows, int64_t dim, int may_be_half) {
  return new_reals(may_be_half && below(3) == 2 ? ORT_FLOAT16 : ORT_FLOAT, 2, rows,
                   dim);
}

static OrtValue *new_ids(size_t rank, int64_t a, int64_t b, int64_t limit) {
  const int64_t dims[2] = {a, b};
  OrtValue *v = new_value(ORT_INT64, rank, dims);
  const int64_t count = host_count(v);
  for (int64_t i = 0; v->type == ORT_INT64 && i < count; i++) {
    ((int64_t *)v->data)[i] = limit > 0 ? (int64_t)(draw() % (uint64_t)limit) : 0;
  }
  if (v->type == ORT_INT64 && count > 0 && seldom()) {
    ((int64_t *)v->data)[draw() % (uint64_t)count] = below(2) ? limit : PICK(INTS);
  }
  return v;
}

static OrtValue *new_bytes(int type, int64_t count, const void *from) {
  OrtValue *v = new_value(type, 1, &count);
  int64_t bytes = host_bytes(v), size = host_size(type) * count;
  if (bytes && size) memcpy(v->data, from, (size_t)(bytes < size ? bytes : size));
  for (int64_t i = 0; i < bytes && seldom(); i++) {
    ((uint8_t *)v->data)[draw() % (uint64_t)bytes] = (uint8_t)byte();
  }
  return v;
}

/* ---- an operator ---- */

static OrtKernelInfo info;
static OrtKernelContext context;
static const char *name, *precision;

static void add_input(OrtValue *v, int is_constant) {
  if (info.num_inputs == HOST_MAX_INPUTS) return;
  if (seldom()) v = NULL;
  if (seldom()) is_constant = !is_constant;
  info.constants[info.num_inputs] = is_constant ? v : NULL;
  context.inputs[info.num_inputs++] = v;
}

static host_attribute *add(const char *label, int kind) {
  host_attribute *a = &info.attributes[info.num_attributes];
  if (seldom()) return a; /* missing, since the next one overwrites it */
  info.num_attributes++;
  memset(a, 0, sizeof *a);
  a->name = label;
  a->kind = kind;
  if (seldom()) a->kind = HOST_INT + below(4), a->text = "", a->size = 0;
  return a;
}
static void add_int(const char *label, int64_t whole) {
  host_attribute *a = add(label, HOST_INT);
  a->whole = seldom() ? PICK(INTS) : whole;
}
static void add_float(const char *label, float number) {
  host_attribute *a = add(label, HOST_FLOAT);
  a->number = number;
  if (seldom()) a->number = PICK(FLOATS), is_odd = 1;
}
static void add_text(const char *label, const char *text) {
  static const char *const others[] = {
      "",     "none",       "\xff\xfe",
      "%s%n", "mask,outer", "0123456789012345678901234567890123456789"};
  host_attribute *a = add(label, HOST_TEXT);
  if (a->kind != HOST_TEXT) return;
  a->text = seldom() ? PICK(others) : text;
  a->size = strlen(a->text) + (size_t)seldom();
}
#define ADD_CHOICE(label, ...) \
  add_text(label, PICK(((const char *const[]){__VA_ARGS__})))

/* Weights of layers l = first .. of a perceptron to one unit. */
static void add_layers(int64_t in, const int64_t *hidden, int count, int activation,
                       int first) {
  for (int l = 1; l <= count + 1; l++) {
    const int64_t out = l <= count ? hidden[l - 1] : 1;
    if (l >= first) add_input(new_floats(2, in, out), 1);
    add_input(new_floats(1, out, 0), 1);
    int parameters = activation == 4 ? 1 : activation == 5 ? 3 : activation == 6;
    if (l > count) parameters = 0;
    while (parameters--) add_input(new_floats(1, out, 0), 1);
    in = out;
  }
}

static const char *const ACTIVATIONS[] = {"none",  "relu", "sigmoid", "silu",
                                          "prelu", "dice", "row_dice"};
static const int64_t WIDTHS[] = {1, 1, 2, 3, 4, 8, 9, 17};

/* Few, for speed; more than a tile or a block of the kernels, now and then. */
static int64_t num_positions(void) {
  static const int64_t few[] = {0, 1, 2, 3}, many[] = {63, 64, 65, 257};
  return prefers_many || below(32) == 31 ? PICK(many) : PICK(few);
}
static int64_t num_items(void) {
  static const int64_t few[] = {0, 1, 2, 3}, many[] = {31, 32, 33, 65};
  return prefers_many || below(32) == 31 ? PICK(many) : PICK(few);
}

enum { MOST_PRODUCTS = 1 << 14 };

static void make_attention(void) {
  static int64_t slots[8]; /* of an attribute */
  int64_t dims[3], rows[3], width = 0, hidden[3];
  const int fields = 1 + below(3), layers = below(4), activation = below(7);
  const int padding = below(3), has_product = below(2), has_outer = below(4) == 3;
  int candidates = 0, num_slots = 0;
  name = "LocalActivation";
  precision = below(8) == 7 ? "bf16" : NULL;
  for (int i = 0; i < fields; i++) {
    dims[i] = 1 + below(6), rows[i] = 1 + below(5), width += dims[i];
    slots[num_slots++] = below(4) ? candidates++ : -dims[i];
  }
  for (int i = 0; i < layers; i++) hidden[i] = PICK(WIDTHS);
  add_int("num_fields", fields);
  add_int("num_layers", layers + 1);
  host_attribute *a = add("query_slots", HOST_INTS);
  if (seldom()) slots[below(num_slots)] = PICK(INTS);
  a->ints = slots, a->size = a->kind == HOST_INTS ? (size_t)num_slots : 0;
  add_text("activation", ACTIVATIONS[activation]);
  ADD_CHOICE("output_activation", "none", "relu", "sigmoid", "silu");
  add_float("epsilon", 1e-3f);
  add_float("scale", below(2) ? 1.0f : 0.5f);
  add_int("softmax", below(2));
  add_text("padding", ((const char *const[]){"masked", "attended", "mask"})[padding]);
  ADD_CHOICE("empty_softmax", "zero", "padding_row");
  add_text("interactions", has_product && has_outer ? "product,outer"
                           : has_product            ? "difference,product"
                           : has_outer              ? "outer"
                                                    : "none");
  const int64_t b = 1 + below(3), t = num_positions();
  int64_t n = num_items(), widest = 1;
  for (int i = 0; i < layers; i++) widest = hidden[i] > widest ? hidden[i] : widest;
  /* Large in both at once: 924 inputs a second with a grown corpus, without 3,519 with
     a new one. */
  if (!prefers_many && n * t * width * widest > MOST_PRODUCTS) n %= 4;
  add_input(new_ids(1, n, 0, b), 0);
  if (padding == 2) {
    OrtValue *mask = new_floats(2, b, t);
    for (int64_t i = 0; mask->type == ORT_FLOAT && i < host_count(mask); i++) {
      ((float *)mask->data)[i] = (float)(draw() % 2);
    }
    add_input(mask, 0);
  } else {
    add_input(new_ids(1, b, 0, t + 1), 0);
  }
  const int is_computed = below(4) == 3;
  for (int i = 0; i < fields; i++) add_input(new_ids(2, b, t, rows[i]), 0);
  for (int i = 0; i < fields; i++) {
    if (slots[i] >= 0) add_input(new_ids(1, n, 0, rows[i]), 0);
  }
  for (int i = 0; i < fields; i++) {
    add_input(new_table(rows[i], dims[i], !is_computed), !is_computed);
  }
  for (int i = 0; i < fields; i++) {
    if (slots[i] >= 0)
      add_input(new_table(rows[i], dims[i], !is_computed), !is_computed);
  }
  const int64_t h = layers ? hidden[0] : 1;
  add_input(new_floats(2, width, h), 1);
  add_input(new_floats(2, width, h), 1);
  if (has_product) add_input(new_floats(2, width, h), 1);
  if (has_outer) add_input(new_floats(2, width, width * h), 1);
  add_layers(width, hidden, layers, activation, 2);
  if (padding != 2 && below(2)) info.num_outputs = 2;
}

static void make_bag(void) {
  const int64_t rows = 1 + below(5), dim = PICK(WIDTHS);
  const int64_t count = num_items(), t = num_positions();
  name = "EmbeddingBag";
  ADD_CHOICE("pooling", "sum", "mean", "max");
  ADD_CHOICE("padding", "masked", "attended");
  add_float("empty", 0.5f);
  add_input(new_ids(2, count, t, rows), 0);
  add_input(new_ids(1, count, 0, t + 1), 0);
  add_input(new_table(rows, dim, 1), 1);
}

static void make_tower(void) {
  const int blocks = 1 + below(3), layers = below(4), activation = below(7);
  const int64_t count = num_items();
  int64_t width = 0, hidden[3];
  name = "Tower";
  add_int("num_blocks", blocks);
  add_int("num_layers", layers + 1);
  add_text("activation", ACTIVATIONS[activation]);
  add_float("epsilon", 1e-3f);
  for (int i = 0; i < layers; i++) hidden[i] = PICK(WIDTHS);
  for (int i = 0; i < blocks; i++) {
    const int64_t columns = PICK(WIDTHS);
    width += columns;
    add_input(new_floats(2, count, columns), 0);
  }
  add_layers(width, hidden, layers, activation, 1);
}

static void make_guard(void) {
  static char fields[200];
  const int users = below(4), candidates = below(4);
  const int64_t n = num_items(), b = 1 + below(4);
  size_t used = 0;
  name = "Guard";
  fields[0] = '\0';
  for (int i = 0; i < users + candidates; i++) {
    used += (size_t)snprintf(fields + used, sizeof fields - used, "%s%d %s",
                             i ? "\n" : "", 1 + i, below(8) == 7 ? "\xc3" : "name");
  }
  if (used > 0 && seldom()) fields[below((int)used)] = (char)byte();
  add_text("fields", fields);
  add_int("num_user_fields", users);
  add_int("has_requests", 1);
  OrtValue *owners = new_ids(1, n, 0, b);
  if (owners->type == ORT_INT64 && host_count(owners) > 0 && !seldom()) {
    ((int64_t *)owners->data)[host_count(owners) - 1] = b - 1;
  }
  add_input(owners, 0);
  add_input(new_ids(1, b, 0, 2), 0);
  add_input(new_ids(1, b, 0, 2), 0);
  for (int i = 0; i < users + candidates; i++) {
    add_input(new_ids(1, i < users ? b : n, 0, 1 + i), 0);
  }
}

/* ---- Encode ---- */

/* Every kind of part and of column. */
static const char *const SPECS[] = {
    "{\"format\":1,\"user\":[{\"name\":\"a\",\"dim\":1,\"encoder\":{\"type\":\"hash\","
    "\"buckets\":9}},{\"name\":\"b\",\"dim\":1,\"encoder\":{\"type\":\"bucketize\","
    "\"boundaries\":[0.0,1.0]}}],\"candidate\":[{\"name\":\"c\",\"dim\":1,\"dtype\":"
    "\"int64\",\"encoder\":{\"type\":\"identity\",\"buckets\":9}},{\"name\":\"d\","
    "\"dim\":1,\"encoder\":{\"type\":\"vocab\",\"values\":0}}]}",
    "{\"format\":1,\"candidate\":[{\"name\":\"c\",\"dim\":1,\"encoder\":{\"type\":"
    "\"hash\",\"buckets\":9}}],\"behavior\":[{\"name\":\"s\",\"max_len\":3,\"fields\":{"
    "\"h\":\"c\"}}],\"dense\":[{\"name\":\"x\",\"side\":\"candidate\",\"dim\":2,"
    "\"missing\":0.0}],\"multi_hot\":[{\"name\":\"m\",\"side\":\"user\",\"dim\":1,"
    "\"max_len\":2,\"dtype\":\"int64\",\"encoder\":{\"type\":\"vocab\",\"values\":0}}]"
    "}",
    "{\"format\":1,\"candidate\":[{\"name\":\"c\",\"dim\":1,\"encoder\":{\"type\":"
    "\"hash\",\"buckets\":9}}],\"behavior\":[{\"name\":\"s\",\"max_len\":3,"
    "\"pad_value\":\"\",\"separator\":\",\",\"fields\":{\"h\":\"c\"}}],\"multi_hot\":[{"
    "\"name\":\"m\",\"side\":\"candidate\",\"dim\":1,\"max_len\":2,\"format\":"
    "\"json\",\"encoder\":{\"type\":\"hash\",\"buckets\":9}}]}",
};

/* Offsets that rise to `last`, for the most part. */
static void add_offsets(int64_t count, int64_t last) {
  int64_t wide[64] = {0}, good = 0;
  int32_t narrow[64] = {0};
  for (int64_t i = 1; i <= count; i++) {
    good += last > 0 ? (int64_t)(draw() % 3) : 0;
    if (good > last || (i == count && !seldom())) good = last;
    wide[i] = seldom() ? PICK(INTS) : good;
    narrow[i] = (int32_t)wide[i];
  }
  const int is_wide = below(2);
  add_input(new_bytes(is_wide ? ORT_INT64 : ORT_INT32, count + 1,
                      is_wide ? (const void *)wide : narrow),
            0);
}

static void add_source(const din_source *s, int64_t rows, int has_strings) {
  static const char letters[] = "a,b,[1,\"x\"] 2,3.5e1\xff,true,,null,[[]]";
  const int is_text = s->reads == DIN_READS_BYTES || s->written;
  const int is_list = s->is_list && !s->written;
  const int64_t elements = is_list ? below(12) : rows;
  if (is_text && has_strings) {
    OrtValue *v = new_value(ORT_STRING, 1, &elements);
    add_input(v, 0);
  } else if (is_text) {
    const int64_t bytes = below((int)sizeof letters);
    add_input(new_bytes(ORT_UINT8, bytes, letters), 0);
    add_offsets(elements, bytes);
  } else if (s->reads == DIN_READS_INT64) {
    add_input(new_ids(1, elements, 0, 9), 0);
  } else {
    double numbers[64];
    for (int i = 0; i < 64; i++) numbers[i] = (double)draw_float();
    const int64_t dims[2] = {elements, s->size};
    OrtValue *v = new_value(ORT_DOUBLE, s->size > 1 ? 2 : 1, dims);
    const int64_t bytes = host_bytes(v);
    if (bytes) memcpy(v->data, numbers, (size_t)(bytes < 512 ? bytes : 512));
    add_input(v, 0);
  }
  if (!s->is_length) {
    const uint64_t bits[4] = {draw(), draw(), draw(), draw()};
    const int64_t needed = (elements * (is_text ? 1 : s->size) + 7) / 8;
    add_input(new_bytes(ORT_UINT8, below(2) ? needed : 0, bits), 0);
  }
  if (is_list) add_offsets(rows, elements);
}

static void make_encode(void) {
  static const int64_t kinds[2][1] = {{1}, {0}};
  static const char keys[] = "abcdab";
  static const int64_t ends[] = {0, 1, 3, 6};
  char error[400];
  const int which = below(3), has_strings = below(2);
  const int64_t counts[2] = {below(5), below(12)};
  name = "Encode";
  add_text("spec", SPECS[which]);
  add_text("text", has_strings ? "strings" : "arrow");
  host_attribute *a = add("vocabularies", HOST_INTS);
  if (which < 2) a->ints = kinds[which], a->size = a->kind == HOST_INTS;
  if (which == 0) {
    add_input(new_bytes(ORT_UINT8, 6, keys), 1);
    add_input(new_bytes(ORT_INT64, 4, ends), 1);
  } else if (which == 1) {
    add_input(new_bytes(ORT_INT64, 3, ends), 1);
  }
  add_input(new_ids(1, counts[DIN_CANDIDATE], 0, counts[DIN_USER]), 0);
  const din_given_keys given = {(const uint8_t *)keys, which ? NULL : ends,
                                which ? ends : NULL, 3};
  din_features *f = din_features_read(SPECS[which], (int64_t)strlen(SPECS[which]),
                                      &given, which < 2, error, sizeof error);
  if (f == NULL) {
    fprintf(stderr, "%s\n", error);
    abort();
  }
  for (int32_t i = 0; i < f->num_sources; i++) {
    add_source(&f->sources[i], counts[f->sources[i].side], has_strings);
  }
  info.num_outputs = (size_t)f->num_outputs;
  for (int32_t i = 0; i < f->num_outputs && i < HOST_MAX_OUTPUTS; i++) {
    const int is_float = f->outputs[i].type == DIN_FLOAT_OUTPUT;
    context.output_types[i] = is_float ? ORT_FLOAT : ORT_INT64;
  }
  din_features_free(f);
}

/* ---- running ---- */

typedef struct outcome {
  char message[600]; /* or empty */
  OrtValue outputs[HOST_MAX_OUTPUTS];
} outcome;

static void fail(const char *what, const outcome *one, const outcome *other) {
  fprintf(stderr, "%s of %s, %s:\n%s\n%s\n", what, name, chosen->name, one->message,
          other->message);
  abort();
}

static void note(outcome *out, OrtStatus *status) {
  if (status == NULL) return;
  snprintf(out->message, sizeof out->message, "%s", status->message);
  host_check_status(status);
  host_release_status(status);
}

static void release_outputs(const OrtValue *outputs) {
  for (int i = 0; i < HOST_MAX_OUTPUTS; i++) free(outputs[i].data);
}

static void run(const din_isa *isa, outcome *out) {
  void *kernel = NULL;
  chosen = isa;
  out->message[0] = '\0';
  memset(out->outputs, 0, sizeof out->outputs);
  const OrtCustomOp *op = host_operator(name, precision);
  OrtStatus *status = op->CreateKernelV2(op, &HOST_API, &info, &kernel);
  if ((status == NULL) != (kernel != NULL)) abort();
  note(out, status);
  if (kernel == NULL) return;
  for (int again = 0; again < 2; again++) { /* scratch memory is kept between runs */
    memset(context.outputs, 0, sizeof context.outputs);
    out->message[0] = '\0';
    note(out, op->KernelComputeV2(kernel, &context));
    if (!again) release_outputs(context.outputs);
  }
  op->KernelDestroy(kernel);
  memcpy(out->outputs, context.outputs, sizeof out->outputs);
}

static void compare(const outcome *one, const outcome *other) {
  if (strcmp(one->message, other->message) != 0) fail("sentences", one, other);
  for (int i = 0; i < HOST_MAX_OUTPUTS; i++) {
    const OrtValue *a = &one->outputs[i], *b = &other->outputs[i];
    if (a->type != b->type || a->rank != b->rank) fail("shapes", one, other);
    for (size_t k = 0; k < a->rank; k++) {
      if (a->dims[k] != b->dims[k]) fail("shapes", one, other);
    }
    if (one->message[0] || a->type == 0) continue;
    const int64_t count = host_count(a);
    const float *x = a->data, *y = b->data;
    float most = 1.0f;
    for (int64_t n = 0; a->type == ORT_FLOAT && n < count; n++) {
      most = fabsf(x[n]) > most ? fabsf(x[n]) : most;
    }
    for (int64_t n = 0; a->type == ORT_FLOAT && n < count; n++) {
      /* Bags of half tables and encodings are exact; the others round differently. */
      if (!(fabsf(x[n] - y[n]) <= 5e-4f * most)) fail("values", one, other);
    }
    if (a->type == ORT_INT64 && count && memcmp(x, y, (size_t)count * 8)) {
      fail("ids", one, other);
    }
  }
}

/* Choose an operator and all that goes into it. */
static void build(void) {
  static void (*const makers[])(void) = {make_attention, make_bag, make_tower,
                                         make_guard, make_encode};
  truths = ((const int[]){256, 252, 256, 236})[below(4)]; /* of 256 bytes */
  memset(&info, 0, sizeof info);
  memset(&context, 0, sizeof context);
  info.num_outputs = 1;
  for (int i = 0; i < HOST_MAX_OUTPUTS; i++) context.output_types[i] = ORT_FLOAT;
  num_values = 0;
  is_odd = 0;
  precision = NULL;
  context.num_threads = 1;
  noise = (uint64_t)(1 + byte()) * 0x9E3779B97F4A7C15u;
  makers[below(5)]();
  context.num_inputs = info.num_inputs;
  if (info.num_inputs > 0 && seldom()) context.num_inputs = --info.num_inputs;
  if (seldom()) info.num_outputs = (size_t)below(HOST_MAX_OUTPUTS + 1);
  context.num_outputs =
      info.num_outputs < HOST_MAX_OUTPUTS ? info.num_outputs : HOST_MAX_OUTPUTS;
  if (seldom()) context.output_types[below(HOST_MAX_OUTPUTS)] = below(17);
  if (precision != NULL && din_find_half_isa() == NULL) precision = NULL;
}

static void release(void) {
  for (size_t i = 0; i < num_values; i++) free(values[i].data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const isas[] = {"avx512", "avx2", "baseline"};
  outcome one, other;
  at = data, stop = data + size;
  const din_isa *second = din_find_isa(isas[below(3)]);
  build();
  run(din_find_isa("baseline"), &one);
  if (second != NULL) {
    run(second, &other);
    if (precision == NULL && !is_odd) compare(&one, &other);
    release_outputs(other.outputs);
  }
  release_outputs(one.outputs);
  release();
  return 0;
}
