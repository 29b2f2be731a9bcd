/* The library's one door: RegisterCustomOps, which ONNX Runtime calls by name.

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
  const din_kind *kind;
  int use_bf16;
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
  return NULL; /* the CPU's */
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
    *instance = (din_instance){api, r, r->kind->create(&op, info, r->use_bf16)};
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
  instance->op->kind->compute(&op, instance->kernel, context);
  return op.status;
}

static void ORT_CALL destroy(void *data) {
  din_instance *instance = data;
  instance->op->kind->destroy(instance->kernel);
  din_free(instance);
}

#define OP(label, of_kind, bf16)                         \
  {.base = {.version = ORT_API_VERSION,                  \
            .GetName = get_name,                         \
            .GetExecutionProviderType = get_provider,    \
            .GetInputType = get_input_type,              \
            .GetInputTypeCount = one,                    \
            .GetOutputType = get_output_type,            \
            .GetOutputTypeCount = one,                   \
            .KernelDestroy = destroy,                    \
            .GetInputCharacteristic = variadic,          \
            .GetOutputCharacteristic = variadic,         \
            .GetInputMemoryType = default_memory,        \
            .GetVariadicInputMinArity = three,           \
            .GetVariadicInputHomogeneity = of_any_types, \
            .GetVariadicOutputMinArity = at_least_one,   \
            .GetVariadicOutputHomogeneity = of_one_type, \
            .CreateKernelV2 = create,                    \
            .KernelComputeV2 = compute},                 \
   .name = (label),                                      \
   .kind = &(of_kind),                                   \
   .use_bf16 = (bf16)}
#define EIGHT(label, a, b, c, d, e, f, g, h, kind, bf16)                         \
  OP(label a, kind, bf16), OP(label b, kind, bf16), OP(label c, kind, bf16),     \
      OP(label d, kind, bf16), OP(label e, kind, bf16), OP(label f, kind, bf16), \
      OP(label g, kind, bf16), OP(label h, kind, bf16)
#define NAMES(label, kind, bf16)                                          \
  EIGHT(label, "", "_1", "_2", "_3", "_4", "_5", "_6", "_7", kind, bf16), \
      EIGHT(label, "_8", "_9", "_10", "_11", "_12", "_13", "_14", "_15", kind, bf16)
#define OPS(bf16)                                       \
  NAMES("LocalActivation", din_local_activation, bf16), \
      NAMES("EmbeddingBag", din_embedding_bag, bf16), OP("Tower", din_tower_op, bf16)

static const din_registered FLOAT_OPS[] = {OPS(0)};
static const din_registered BF16_OPS[] = {OPS(1)};
#define NUM_OPS (sizeof FLOAT_OPS / sizeof FLOAT_OPS[0])

/* The session's own option says which arithmetic: din_infer.precision = bf16. */
static int reads_bf16(din_op *op, const OrtSessionOptions *options) {
  static const char key[] = "din_infer.precision";
  char text[8] = "";
  size_t size = sizeof text;
  int present = 0;
  din_check(op, op->api->HasSessionConfigEntry(options, key, &present));
  if (op->status || !present) return 0;
  OrtStatus *too_long = op->api->GetSessionConfigEntry(options, key, text, &size);
  if (too_long) {
    op->api->ReleaseStatus(too_long);
    memcpy(text, "another", sizeof text);
  }
  if (strcmp(text, "bf16") == 0) return 1;
  if (strcmp(text, "fp32") != 0) {
    din_fail(op, "expected fp32 or bf16, got %s - at `%s`", text, key);
  }
  return 0;
}

/* Session options do not own their domains, so one domain serves every session of a
   runtime: the first runtime's is remembered, for each precision. */
typedef struct din_domain {
  const OrtApi *api;
  OrtCustomOpDomain *domain;
} din_domain;
static _Atomic(din_domain *) known_domains[2];

static OrtCustomOpDomain *make_domain(din_op *op, int use_bf16) {
  const din_registered *ops = use_bf16 ? BF16_OPS : FLOAT_OPS;
  OrtCustomOpDomain *domain = NULL;
  din_check(op, op->api->CreateCustomOpDomain("din_infer", &domain));
  for (size_t i = 0; i < NUM_OPS && !op->status; i++) {
    din_check(op, op->api->CustomOpDomain_Add(domain, &ops[i].base));
  }
  if (op->status && domain) op->api->ReleaseCustomOpDomain(domain);
  return op->status ? NULL : domain;
}

static OrtCustomOpDomain *find_domain(din_op *op, int use_bf16) {
  din_domain *known = atomic_load(&known_domains[use_bf16]), *nothing = NULL;
  if (known && known->api == op->api) return known->domain;
  din_domain *made = din_allocate(op, 1, sizeof *made);
  if (made == NULL) return NULL;
  *made = (din_domain){op->api, make_domain(op, use_bf16)};
  OrtCustomOpDomain *domain = made->domain;
  if (op->status ||
      !atomic_compare_exchange_strong(&known_domains[use_bf16], &nothing, made)) {
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
  int use_bf16 = reads_bf16(&op, options);
  if (!op.status) din_chosen_isa(&op);
  if (!op.status && use_bf16 && din_find_half_isa() == NULL) {
    din_fail(&op,
             "expected a CPU with AMX, got one without - at `din_infer.precision`");
  }
  OrtCustomOpDomain *domain = op.status ? NULL : find_domain(&op, use_bf16);
  if (!op.status) din_check(&op, api->AddCustomOpDomain(options, domain));
  return op.status;
}
