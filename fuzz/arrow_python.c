/*
 * Arrow structures through Python: __arrow_c_array__, and __arrow_c_stream__, which may
 * fail at any step, into the extension. What a run does with them stands in
 * fuzz/arrow_python.py, and no error but DinError and TypeError may come out of it.
 * Every structure is released exactly once.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "arrow_build.h"
#include "specs.h"

PyMODINIT_FUNC PyInit__kernels(void);

static PyObject *run;

static void require(int is_so) {
  if (!is_so) abort();
}

static PyObject *or_exit(PyObject *made) {
  if (made != NULL) return made;
  PyErr_Print();
  exit(1);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  PyConfig config;
  (void)argc;
  (void)argv;
  open_specs();
  PyImport_AppendInittab("din_infer._kernels", PyInit__kernels);
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;
  PyConfig_SetBytesString(&config, &config.program_name, FUZZ_PYTHON);
  if (PyStatus_Exception(Py_InitializeFromConfig(&config))) exit(1);
  PyConfig_Clear(&config);
  PyObject *path = PySys_GetObject("path");
  PyList_Insert(path, 0, or_exit(PyUnicode_FromString("fuzz")));
  PyList_Insert(path, 0, or_exit(PyUnicode_FromString(".")));
  PyObject *module = or_exit(PyImport_ImportModule("arrow_python"));
  run = or_exit(PyObject_GetAttrString(module, "run"));
  return 0;
}

/* ----------------------------------------------------------------------- released once */

typedef struct {
  int released;
} counter;

static counter *made[64]; /* of this run */
static int num_made;

static counter *new_counter(input *in) {
  counter *c = give(in, sizeof *c);
  c->released = 0;
  require(num_made < 64);
  return made[num_made++] = c;
}

static void release_schema(struct ArrowSchema *s) {
  ++((counter *)s->private_data)->released;
  s->release = NULL;
}
static void release_array(struct ArrowArray *a) {
  ++((counter *)a->private_data)->released;
  a->release = NULL;
}

/* ----------------------------------------------------------------------------- streams */

typedef struct {
  input *in;
  column batches[4];
  int num_batches, next;
  int fails_at; /* a call, from 0 on: get_schema first; -1: none */
  int code;
  const char *error;
  counter *released;
} stream;

static stream *of(struct ArrowArrayStream *s) {
  stream *found = s->private_data;
  require(s->release != NULL && found->released->released == 0);
  return found;
}

/* Hand a structure on, to be released by whoever has it. */
static void give_schema(input *in, struct ArrowSchema *from, struct ArrowSchema *out) {
  *out = *from;
  out->release = release_schema;
  out->private_data = new_counter(in);
}
static void give_array(input *in, struct ArrowArray *from, struct ArrowArray *out) {
  *out = *from;
  out->release = release_array;
  out->private_data = new_counter(in);
}

static int get_schema(struct ArrowArrayStream *lent, struct ArrowSchema *out) {
  stream *s = of(lent);
  if (s->fails_at == 0) return s->code;
  give_schema(s->in, s->batches[0].schema, out);
  return 0;
}

static int get_next(struct ArrowArrayStream *lent, struct ArrowArray *out) {
  stream *s = of(lent);
  if (s->fails_at == s->next + 1) return s->code;
  if (s->next == s->num_batches) {
    memset(out, 0, sizeof *out);
    return 0;
  }
  give_array(s->in, s->batches[s->next++].array, out);
  return 0;
}

static const char *get_last_error(struct ArrowArrayStream *s) { return of(s)->error; }

static void release_stream(struct ArrowArrayStream *s) {
  ++of(s)->released->released;
  s->release = NULL;
}

/* ---------------------------------------------------------------------------- capsules */

static void drop_schema(PyObject *capsule) {
  struct ArrowSchema *s = PyCapsule_GetPointer(capsule, "arrow_schema");
  if (s->release != NULL) s->release(s);
}
static void drop_array(PyObject *capsule) {
  struct ArrowArray *a = PyCapsule_GetPointer(capsule, "arrow_array");
  if (a->release != NULL) a->release(a);
}
static void drop_stream(PyObject *capsule) {
  struct ArrowArrayStream *s = PyCapsule_GetPointer(capsule, "arrow_array_stream");
  if (s->release != NULL) s->release(s);
}

/* A source of one array, or of a stream of batches of the same type. */
static PyObject *make_source(input *in, const spec *s, int is_table, int is_stream) {
  static const char *const errors[] = {NULL, "", "disk on fire", "\xff\xfe"};
  const uint8_t *begin = in->at;
  const uint64_t state = in->state;
  const column first = is_table ? make_table(in, s->all, s->num_all)
                                : make_column(in, "x", pick(in, NUM_WANTS), pick(in, 2),
                                              pick(in, 12), 0, pick(in, 3) == 2);
  if (!is_stream) {
    struct ArrowSchema *schema = give(in, sizeof *schema);
    struct ArrowArray *array = give(in, sizeof *array);
    give_schema(in, first.schema, schema);
    give_array(in, first.array, array);
    if (lies(in) && pick(in, 4) == 0) {
      release_array(array); /* an array that somebody has released */
    }
    PyObject *a = or_exit(PyCapsule_New(schema, "arrow_schema", drop_schema));
    PyObject *b = or_exit(PyCapsule_New(array, "arrow_array", drop_array));
    return or_exit(Py_BuildValue("(NN)", a, b));
  }
  stream *made_of = give(in, sizeof *made_of);
  *made_of = (stream){.in = in, .fails_at = -1, .released = new_counter(in)};
  made_of->batches[0] = first;
  made_of->num_batches = pick(in, 4);
  /* the same choices again, so that all have the type of the first */
  const input after = *in;
  for (int i = 1; i < made_of->num_batches; ++i) {
    in->at = begin;
    in->state = state;
    made_of->batches[i] = is_table
                              ? make_table(in, s->all, s->num_all)
                              : make_column(in, "x", pick(in, NUM_WANTS), pick(in, 2),
                                            pick(in, 12), 0, pick(in, 3) == 2);
  }
  in->at = after.at;
  const int fails = take(in);
  if (fails >= 200) {
    made_of->fails_at = fails % 5;
    made_of->code = (int[]){5, 22, -1, 12}[pick(in, 4)];
    made_of->error = errors[pick(in, COUNT(errors))];
  }
  struct ArrowArrayStream *lent = give(in, sizeof *lent);
  *lent = (struct ArrowArrayStream){get_schema, get_next, get_last_error,
                                    release_stream, made_of};
  return or_exit(PyCapsule_New(lent, "arrow_array_stream", drop_stream));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input in;
  open_input(&in, data, size);
  num_made = 0;
  const int how = take(&in);
  const int number = how % num_specs;
  const int ways = take(&in), is_table = ways % 4 != 3, is_stream = ways >> 2 & 1;
  PyObject *source = make_source(&in, &specs[number], is_table, is_stream);
  PyObject *done = PyObject_CallFunction(run, "Oiiii", source, is_stream, is_table,
                                         number, ways >> 3);
  Py_DECREF(source);
  if (done == NULL) {
    PyErr_Print();
    abort();
  }
  Py_DECREF(done);
  for (int i = 0; i < num_made; ++i) {
    if (made[i]->released == 1) continue;
    fprintf(stderr, "ERROR: structure %d released %d times\n", i, made[i]->released);
    abort();
  }
  close_input(&in);
  return 0;
}
