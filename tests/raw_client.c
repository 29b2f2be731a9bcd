/* A model of raw values scored by a program in C, or in C++, that has ONNX Runtime and the
   operators alone: the slice of the runtime's table of functions that it needs is here.

     raw_client model.onnx operators feeds

   `feeds` are the inputs, one after the other: a line "name type rank dims.. bytes", and
   the bytes. Prints the scores. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64, PLACES = 105 };
typedef void (*Function)(void);
typedef void *Status;
struct Base {
  const Function *(*get_api)(uint32_t version);
  const char *(*get_version)(void);
};
#ifdef __cplusplus
extern "C"
#endif
    const struct Base *OrtGetApiBase(void);

static const Function *api;
#define CALL(place, types) ((Status(*) types)api[place])

static void check(Status status) {
  if (status == NULL) return;
  const char *(*say)(Status) = (const char *(*)(Status))api[2];
  fprintf(stderr, "%s\n", say(status));
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  void *env, *options, *session, *library, *memory;
  const char *names[MOST];
  void *values[MOST], *score = NULL;
  size_t count = 0;
  api = OrtGetApiBase()->get_api(20);
  check(CALL(3, (int, const char *, void **))(3, "client", &env));
  check(CALL(10, (void **))(&options));
  check(CALL(24, (void *, int))(options, 1));
  check(CALL(29, (void *, const char *, void **))(options, argv[2], &library));
  check(CALL(7, (void *, const char *, void *, void **))(env, argv[1], options,
                                                         &session));
  check(CALL(69, (int, int, void **))(0, 0, &memory));
  FILE *file = fopen(argv[3], "rb");
  static char name[MOST][100];
  for (int type, rank; file != NULL && count < MOST; ++count) {
    int64_t dims[2] = {1, 1};
    size_t size;
    if (fscanf(file, "%99s %d %d", name[count], &type, &rank) != 3) break;
    for (int i = 0; i < rank; ++i) {
      if (fscanf(file, "%" SCNd64, &dims[i]) != 1) return 3;
    }
    if (fscanf(file, "%zu", &size) != 1 || fgetc(file) != '\n') return 3;
    void *data = malloc(size + 1);
    if (data == NULL || fread(data, 1, size, file) != size) return 3;
    names[count] = name[count];
    check(CALL(49, (void *, void *, size_t, const int64_t *, size_t, int, void **))(
        memory, data, size, dims, (size_t)rank, type, &values[count]));
  }
  const char *wanted[] = {"score"};
  check(CALL(9, (void *, void *, const char *const *, void *const *, size_t,
                 const char *const *, size_t, void **))(session, NULL, names, values,
                                                        count, wanted, 1, &score));
  void *info;
  size_t n = 0;
  float *scores;
  check(CALL(65, (void *, void **))(score, &info));
  check(CALL(64, (void *, size_t *))(info, &n));
  check(CALL(51, (void *, float **))(score, &scores));
  for (size_t i = 0; i < n; ++i) printf("%.9g\n", (double)scores[i]);
  return 0;
}
