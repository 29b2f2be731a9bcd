/* The specs of fuzz/specs.jsonl, one a line, and the columns that each reads. */
#ifndef FUZZ_SPECS_H
#define FUZZ_SPECS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arrow_build.h"
#include "spec.h"

enum { MOST_SPECS = 32, MOST_COLUMNS = 64 };

struct din_encode_spec {
  din_features *features;
};

typedef struct {
  din_encode_spec *opened;
  wanted_column columns[2][MOST_COLUMNS]; /* of requests, of candidates */
  int num_columns[2];
  wanted_column all[MOST_COLUMNS]; /* of both, those of one name once */
  int num_all;
} spec;

static spec specs[MOST_SPECS];
static int num_specs;

static void add_column(const din_source *s, wanted_column *columns, int *count) {
  const int is_text = s->written != DIN_TEXT_IS_NO_LIST;
  for (int i = 0; i < *count; ++i) {
    if (strcmp(columns[i].name, s->name) == 0) return;
  }
  if (*count == MOST_COLUMNS) abort();
  columns[(*count)++] =
      (wanted_column){s->name,
                      is_text || s->reads == DIN_READS_BYTES ? WANT_TEXT
                      : s->reads == DIN_READS_INT64          ? WANT_INTEGER
                                                             : WANT_NUMBER,
                      !is_text && (s->is_list || s->size > 1)};
}

/* Read the file, from the root of the project. */
static inline void open_specs(void) {
  static char line[1 << 16];
  char error[512];
  FILE *file = fopen("fuzz/specs.jsonl", "r");
  if (file == NULL) {
    fprintf(stderr, "expected fuzz/specs.jsonl in the working directory, got none\n");
    exit(1);
  }
  while (num_specs < MOST_SPECS && fgets(line, sizeof line, file) != NULL) {
    spec *s = &specs[num_specs++];
    s->opened = din_encode_open(line, (int64_t)strlen(line), error, sizeof error);
    if (s->opened == NULL) {
      fprintf(stderr, "line %d: %s\n", num_specs, error);
      exit(1);
    }
    const din_features *f = s->opened->features;
    for (int i = 0; i < f->num_sources; ++i) {
      const int side = f->sources[i].side;
      add_column(&f->sources[i], s->columns[side], &s->num_columns[side]);
      add_column(&f->sources[i], s->all, &s->num_all);
    }
  }
  fclose(file);
}

#endif /* FUZZ_SPECS_H */
