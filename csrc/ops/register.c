/* The library's one entry point: RegisterCustomOps, called by ONNX Runtime by name.

   An operator takes over from the model-local function of its name, so the names are
   those that din-convert gives: LocalActivation, LocalActivation_1, and so on, one for
   each signature in a model. Sequences beyond the last name run as functions. */
#include <stdatomic.h>
#include <string.h>

#include "op.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* An operator as the runtime sees it, and what its callbacks need besides. */
typedef struct din_registered {
  OrtCustomOp base; /* first: the runtime hands back a pointer to it */
  const char *name;
  const din_kind *const *kind; /* of the provider's */
  din_precision precision;
} din_registered;

typedef struct din_instance {
  const OrtApi *api;
  const din_registered *op;
  void *kernel;
} din_instance;

static const din_registered *registered(const OrtCustomOp *op) {
  return (const din_registered *)(const void *)op;
}

static const char *ORT_CALL get_name(const OrtCustomOp *op) {
  return registered(op)->name;
}
static const char *ORT_CALL get_provider(const OrtCustomOp *op) {
  (void)op;
  return DIN_PROVIDER.name;
}
/* One variadic input of any types: a kernel checks them by position, which lets one
   operator serve any number of fields and layers. */
static int ORT_CALL get_input_type(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ORT_UNDEFINED;
}
static int ORT_CALL get_output_type(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ORT_FLOAT;
}
static size_t ORT_CALL one(const OrtCustomOp *op) {
  (void)op;
  return 1;
}
static int ORT_CALL variadic(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return ORT_VARIADIC;
}
static int ORT_CALL default_memory(const OrtCustomOp *op, size_t index) {
  (void)op, (void)index;
  return 0;
}
static int ORT_CALL three(const OrtCustomOp *op) {
  (void)op;
  return 3;
}
static int ORT_CALL at_least_one(const OrtCustomOp *op) {
  (void)op;
  return 1;
}
static int ORT_CALL of_any_types(const OrtCustomOp *op) {
  (void)op;
  return 0;
}
static int ORT_CALL of_one_type(const OrtCustomOp *op) {
  (void)op;
  return 1;
}

static OrtStatus *ORT_CALL create(const OrtCustomOp *base, const OrtApi *api,
                                  const OrtKernelInfo *info, void **out) {
  const din_registered *r = registered(base);
  din_op op = {api, r->name, NULL};
  din_instance *instance = din_allocate(&op, 1, sizeof *instance);
  if (instance) {
    *instance =
        (din_instance){api, r, (*r->kind)->create(&op, info, (int)r->precision)};
  }
  if (op.status) {
    din_free(instance);
    instance = NULL;
  }
  *out = instance;
  return op.status;
}

static OrtStatus *ORT_CALL compute(void *data, OrtKernelContext *context) {
  din_instance *instance = data;
  din_op op = {instance->api, instance->op->name, NULL};
  (*instance->op->kind)->compute(&op, instance->kernel, context);
  return op.status;
}

static void ORT_CALL destroy(void *data) {
  din_instance *instance = data;
  (*instance->op->kind)->destroy(instance->kernel);
  din_free(instance);
}

#define OP(label, of_kind, in) ANY_OP(label, of_kind, in, get_output_type, of_one_type)
/* Outputs of any types: those that the graph gives them. */
#define ANY_OP(label, of_kind, in, type_of_output, outputs) \
  {.base = {.version = ORT_API_VERSION,                     \
            .GetName = get_name,                            \
            .GetExecutionProviderType = get_provider,       \
            .GetInputType = get_input_type,                 \
            .GetInputTypeCount = one,                       \
            .GetOutputType = type_of_output,                \
            .GetOutputTypeCount = one,                      \
            .KernelDestroy = destroy,                       \
            .GetInputCharacteristic = variadic,             \
            .GetOutputCharacteristic = variadic,            \
            .GetInputMemoryType = default_memory,           \
            .GetVariadicInputMinArity = three,              \
            .GetVariadicInputHomogeneity = of_any_types,    \
            .GetVariadicOutputMinArity = at_least_one,      \
            .GetVariadicOutputHomogeneity = outputs,        \
            .CreateKernelV2 = create,                       \
            .KernelComputeV2 = compute},                    \
   .name = (label),                                         \
   .kind = &DIN_PROVIDER.of_kind,                           \
   .precision = (in)}
#define EIGHT(label, a, b, c, d, e, f, g, h, kind, in)                     \
  OP(label a, kind, in), OP(label b, kind, in), OP(label c, kind, in),     \
      OP(label d, kind, in), OP(label e, kind, in), OP(label f, kind, in), \
      OP(label g, kind, in), OP(label h, kind, in)
#define NAMES(label, kind, in)                                          \
  EIGHT(label, "", "_1", "_2", "_3", "_4", "_5", "_6", "_7", kind, in), \
      EIGHT(label, "_8", "_9", "_10", "_11", "_12", "_13", "_14", "_15", kind, in)
#define OPS(in)                                                         \
  NAMES("LocalActivation", local_activation, in),                       \
      NAMES("EmbeddingBag", embedding_bag, in), OP("Guard", guard, in), \
      OP("Tower", tower, in),                                           \
      ANY_OP("Encode", encode, in, get_input_type, of_any_types)

#define NUM_OPS 35
static const din_registered ALL_OPS[DIN_NUM_PRECISIONS][NUM_OPS] = {
    {OPS(DIN_FP32)}, {OPS(DIN_BF16)}, {OPS(DIN_TF32)}, {OPS(DIN_TF32X3)}};

/* The session's own option says which arithmetic: din_infer.precision = bf16. */
static din_precision read_precision(din_op *op, const OrtSessionOptions *options) {
  static const char key[] = "din_infer.precision";
  char text[8] = "", rule[64] = "";
  size_t size = sizeof text;
  int present = 0;
  din_check(op, op->api->HasSessionConfigEntry(options, key, &present));
  if (op->status || !present) return DIN_FP32;
  OrtStatus *too_long = op->api->GetSessionConfigEntry(options, key, text, &size);
  if (too_long) {
    op->api->ReleaseStatus(too_long);
    memcpy(text, "another", sizeof text);
  }
  for (int p = 0; p < DIN_NUM_PRECISIONS; p++) {
    const char *name = DIN_PROVIDER.precisions[p];
    if (name == NULL) continue;
    if (strcmp(text, name) == 0) return (din_precision)p;
    strncat(rule, *rule ? " or " : "", sizeof rule - strlen(rule) - 1);
    strncat(rule, name, sizeof rule - strlen(rule) - 1);
  }
  din_fail(op, "expected %s, got %s - at `%s`", rule, text, key);
  return DIN_FP32;
}

/* Session options do not own their domains, so one domain serves every session of a
   runtime: the first runtime's is remembered, for each precision. */
typedef struct din_domain {
  const OrtApi *api;
  OrtCustomOpDomain *domain;
} din_domain;
static _Atomic(din_domain *) known_domains[DIN_NUM_PRECISIONS];

static OrtCustomOpDomain *make_domain(din_op *op, din_precision precision) {
  OrtCustomOpDomain *domain = NULL;
  din_check(op, op->api->CreateCustomOpDomain("din_infer", &domain));
  for (size_t i = 0; i < NUM_OPS && !op->status; i++) {
    const din_registered *r = &ALL_OPS[precision][i];
    if (*r->kind) din_check(op, op->api->CustomOpDomain_Add(domain, &r->base));
  }
  if (op->status && domain) op->api->ReleaseCustomOpDomain(domain);
  return op->status ? NULL : domain;
}

static OrtCustomOpDomain *find_domain(din_op *op, din_precision precision) {
  din_domain *known = atomic_load(&known_domains[precision]), *nothing = NULL;
  if (known && known->api == op->api) return known->domain;
  din_domain *made = din_allocate(op, 1, sizeof *made);
  if (made == NULL) return NULL;
  *made = (din_domain){op->api, make_domain(op, precision)};
  OrtCustomOpDomain *domain = made->domain;
  if (op->status ||
      !atomic_compare_exchange_strong(&known_domains[precision], &nothing, made)) {
    din_free(made); /* a second runtime's domain lives on with its sessions */
  }
  return domain;
}

EXPORT OrtStatus *ORT_CALL RegisterCustomOps(OrtSessionOptions *options,
                                             const OrtApiBase *base);

EXPORT OrtStatus *ORT_CALL RegisterCustomOps(OrtSessionOptions *options,
                                             const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(ORT_API_VERSION);
  /* An older runtime has no status to give either; the models' functions serve it. */
  if (api == NULL) return NULL;
  din_op op = {api, "RegisterCustomOps", NULL};
  din_precision precision = read_precision(&op, options);
  if (!op.status) DIN_PROVIDER.check(&op, precision);
  OrtCustomOpDomain *domain = op.status ? NULL : find_domain(&op, precision);
  if (!op.status) din_check(&op, api->AddCustomOpDomain(options, domain));
  return op.status;
}
