/* Columns -> the inputs of the graph: din_infer/encode.py without Python. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec.h"

/* Elements that one thread encodes at a time, as in encode.py. */
#define PART (INT64_C(1) << 16)

/* One output on its way. */
typedef struct {
  const din_part *part;
  const din_ids *ids; /* NULL: dense values */
  const din_list_window *window;
  din_window w;
  void *out;
  int64_t num_rows;
  int64_t num_elements;
} job;

/* Rows of a job, and where they ended. */
typedef struct {
  const job *job;
  int64_t first, stop;
  int32_t reading; /* of the fault */
  din_tally tally;
} portion;

typedef struct {
  din_encoding e; /* its views are ours */
  din_view *views;
  din_column *columns; /* of each reading, then of each part */
  din_codes *codes;    /* of each reading */
  din_list_window *windows;
  job *jobs;
  int32_t num_jobs;
  portion *portions;
  void **memory; /* of texts that were split */
} state;

static int no_memory(const din_encoding *e, const char *name) {
  return din_say(e->error, e->error_size, "memory for its values", "none", name, -1,
                 "");
}

/* ------------------------------------------------------------------------ preparing */

static void *output(const state *s, int32_t index, int64_t rows, int64_t width) {
  const int64_t dims[2] = {rows, width};
  void *made = s->e.output(s->e.context, index, dims);
  if (made == NULL && s->e.error[0] == '\0') {
    no_memory(&s->e, s->e.features->outputs[index].name);
  }
  return made;
}

static int find_codes(state *s, int32_t reading) {
  const din_column *c = &s->columns[reading];
  const din_encoder *encoder = &s->e.features->readings[reading].encoder;
  din_codes *codes = &s->codes[reading];
  const int64_t size = c->dictionary.length;
  int64_t first, stop;
  if (!c->has_dictionary || encoder->is_seeded) return 0;
  din_check_rows(c, &first, &stop);
  if (size > stop - first || size == 0) return 0;
  int64_t *ids = malloc((size_t)size * (sizeof *ids + 1));
  if (ids == NULL) return -1;
  uint8_t *kinds = (uint8_t *)(ids + size);
  din_encode_dictionary(c, encoder, ids, kinds, &codes->has_special);
  codes->ids = ids;
  codes->codes = kinds;
  codes->num_ids = size;
  return 0;
}

/* View the columns of ids; 0, or -1 and a sentence. */
static int require_ids(state *s, const din_ids *ids, int is_list) {
  const din_features *f = s->e.features;
  for (int32_t i = 0; i < ids->num_readings; ++i) {
    const int32_t at = ids->first_reading + i;
    const din_reading *r = &f->readings[at];
    if (din_require(&s->e, r->source, r->reads, is_list, r->uuid_as, &s->columns[at])) {
      return -1;
    }
    if (find_codes(s, at)) return no_memory(&s->e, f->sources[r->source].name);
  }
  return 0;
}

static int add_job(state *s, const job *made) {
  if (made->out == NULL) return -1;
  s->jobs[s->num_jobs++] = *made;
  return 0;
}

static int prepare_field(state *s, const din_part *part) {
  const din_ids *ids = &s->e.features->ids[part->first_ids];
  const int64_t rows = s->e.num_rows[part->side];
  if (require_ids(s, ids, 0)) return -1;
  return add_job(s, &(job){.part = part,
                           .ids = ids,
                           .out = output(s, ids->output, rows, 1),
                           .num_rows = rows,
                           .num_elements = rows * ids->num_readings});
}

static int prepare_dense(state *s, int32_t at) {
  const din_features *f = s->e.features;
  const din_part *part = &f->parts[at];
  const int64_t rows = s->e.num_rows[part->side];
  const int is_list = part->dim > 1 || s->e.views[part->source].is_list;
  if (din_require(&s->e, part->source, DIN_READS_FLOAT64, is_list, 0,
                  &s->columns[f->num_readings + at])) {
    return -1;
  }
  return add_job(s, &(job){.part = part,
                           .out = output(s, part->output, rows, part->dim),
                           .num_rows = rows,
                           .num_elements = rows * part->dim});
}

/* Refuse a column whose lists have other lengths than those of the first field. */
static int check_parallel(const state *s, const din_part *part, int32_t reading,
                          const int64_t *lengths) {
  const din_features *f = s->e.features;
  const din_column *c = &s->columns[reading];
  const int32_t first = f->ids[part->first_ids].first_reading;
  for (int64_t row = 0; row < c->num_rows; ++row) {
    int64_t start, count;
    din_row_bounds(c, row, &start, &count);
    if (count == lengths[row]) continue;
    char rule[160], got[32];
    snprintf(rule, sizeof rule, "%" PRId64 " elements, as `%.100s` has", lengths[row],
             f->sources[f->readings[first].source].name);
    snprintf(got, sizeof got, "%" PRId64, count);
    return din_say(s->e.error, s->e.error_size, rule, got,
                   f->sources[f->readings[reading].source].name, row, "");
  }
  return 0;
}

static int prepare_ids(state *s, const din_part *part, din_list_window *w,
                       const int64_t *lengths) {
  const din_features *f = s->e.features;
  const int64_t rows = s->e.num_rows[part->side];
  int64_t longest = 0, total = 0, empty = 0;
  const int32_t first = f->ids[part->first_ids].first_reading;
  if (din_open_window(&s->e, part, &s->columns[first], lengths, w)) return -1;
  const int checks = part->checks_padding && part->lengths_source >= 0 &&
                     s->e.views[part->lengths_source].is_given;
  for (int64_t row = 0; row < rows; ++row) empty |= w->kept[row] == 0;
  for (int32_t i = 0; i < part->num_ids && checks && empty; ++i) {
    const din_ids *ids = &f->ids[part->first_ids + i];
    for (int32_t k = 0; k < ids->num_readings; ++k) {
      const int32_t at = ids->first_reading + k;
      if (din_check_padding(&s->e, part, &s->columns[at],
                            f->sources[f->readings[at].source].name, w->kept)) {
        return -1;
      }
    }
  }
  int64_t *kept = output(s, part->lengths_output, rows, 1);
  if (kept == NULL) return -1;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t n = w->kept[row] < part->max_len ? w->kept[row] : part->max_len;
    longest = n > longest ? n : longest;
    total += n;
    kept[row] = n;
  }
  const int64_t width = part->is_attended ? part->max_len : longest;
  for (int32_t i = 0; i < part->num_ids; ++i) {
    const din_ids *ids = &f->ids[part->first_ids + i];
    for (int32_t k = 0; k < ids->num_readings; ++k) {
      const int32_t at = ids->first_reading + k;
      if (at != first && check_parallel(s, part, at, lengths)) return -1;
    }
    job made = {.part = part,
                .ids = ids,
                .window = w,
                .w = w->window,
                .out = output(s, ids->output, rows, width),
                .num_rows = rows,
                .num_elements = (total + rows) * ids->num_readings};
    made.w.width = width;
    if (add_job(s, &made)) return -1;
  }
  return 0;
}

static int prepare_lists(state *s, int32_t at) {
  const din_features *f = s->e.features;
  const din_part *part = &f->parts[at];
  const int64_t rows = s->e.num_rows[part->side];
  for (int32_t i = 0; i < part->num_ids; ++i) {
    if (require_ids(s, &f->ids[part->first_ids + i], 1)) return -1;
  }
  int64_t *lengths = malloc(((size_t)rows + 1) * sizeof *lengths);
  if (lengths == NULL) return no_memory(&s->e, part->name);
  din_row_lengths(&s->columns[f->ids[part->first_ids].first_reading], lengths);
  const int failed = prepare_ids(s, part, &s->windows[at], lengths);
  free(lengths);
  return failed;
}

/* ------------------------------------------------------------------------- running */

static void run_ids(const state *s, portion *p) {
  const job *j = p->job;
  const int64_t width = j->window == NULL ? 1 : j->w.width;
  const din_reading *first = &s->e.features->readings[j->ids->first_reading];
  int64_t *ids = j->out;
  if (first->encoder.is_seeded) {
    for (int64_t i = p->first * width; i < p->stop * width; ++i) {
      ids[i] = (int64_t)first->encoder.seed;
    }
  }
  if (width == 0) return;
  for (int32_t k = 0; k < j->ids->num_readings && !p->tally.fault; ++k) {
    const int32_t at = p->reading = j->ids->first_reading + k;
    const din_encoder *encoder = &s->e.features->readings[at].encoder;
    const din_codes *codes = s->codes[at].ids == NULL ? NULL : &s->codes[at];
    if (j->window == NULL) {
      din_encode_scalars(&s->columns[at], encoder, codes, p->first, p->stop, ids,
                         &p->tally);
    } else {
      din_encode_lists(&s->columns[at], encoder, codes, &j->w, p->first, p->stop, ids,
                       &p->tally);
    }
  }
}

static void run_portion(void *data, int64_t i) {
  const state *s = data;
  portion *p = &s->portions[i];
  const din_part *part = p->job->part;
  if (p->job->ids != NULL) {
    run_ids(s, p);
    return;
  }
  const din_features *f = s->e.features;
  din_column column = s->columns[f->num_readings + (part - f->parts)];
  column.num_rows = p->stop;
  din_read_dense(&column, p->first, part->dim, part->has_missing, part->missing,
                 part->has_scale ? &part->scale : NULL, NULL, p->job->out, NULL,
                 &p->tally);
}

static int say_fault(const state *s, const portion *p) {
  const din_features *f = s->e.features;
  char rule[64];
  int32_t source = p->job->part->source;
  const din_column *column = &s->columns[p->reading];
  if (p->job->ids == NULL) {
    column = &s->columns[f->num_readings + (p->job->part - f->parts)];
    snprintf(rule, sizeof rule, "%" PRId64 " value%s", p->job->part->dim,
             p->job->part->dim == 1 ? "" : "s");
  } else {
    const din_encoder *encoder = &f->readings[p->reading].encoder;
    source = f->readings[p->reading].source;
    snprintf(rule, sizeof rule, "an id in [0, %" PRId64 ")", p->job->ids->num_rows);
    if (encoder->type == DIN_ENCODE_VOCAB) {
      snprintf(rule, sizeof rule, "a value of the vocabulary");
    }
  }
  return din_say_fault(&s->e, column, f->sources[source].name, &p->tally, rule,
                       s->views[source].type_name);
}

static int run_jobs(state *s) {
  int64_t total = 0, count = 0;
  for (int32_t i = 0; i < s->num_jobs; ++i) total += s->jobs[i].num_elements;
  const int is_shared = total >= 2 * PART && s->e.share != NULL;
  const int64_t most = s->num_jobs + (is_shared ? total / PART : 0);
  s->portions = calloc((size_t)most + 1, sizeof *s->portions);
  if (s->portions == NULL) return no_memory(&s->e, "batch");
  for (int32_t i = 0; i < s->num_jobs; ++i) {
    const job *j = &s->jobs[i];
    int64_t cuts = is_shared ? j->num_elements / PART : 1;
    if (cuts > j->num_rows) cuts = j->num_rows;
    if (cuts < 1) cuts = 1;
    for (int64_t k = 0; k < cuts; ++k) {
      /* rows are fewer than 2^58, cuts fewer than 2^42 */
      const int64_t whole = j->num_rows / cuts, rest = j->num_rows % cuts;
      const int64_t first = k * whole + (k < rest ? k : rest);
      s->portions[count++] =
          (portion){.job = j, .first = first, .stop = first + whole + (k < rest)};
    }
  }
  if (is_shared) {
    s->e.share(s->e.context, run_portion, s, count);
  } else {
    for (int64_t i = 0; i < count; ++i) run_portion(s, i);
  }
  for (int is_ids = 0; is_ids < 2; ++is_ids) {
    for (int64_t i = 0; i < count; ++i) {
      const portion *p = &s->portions[i];
      if ((p->job->ids != NULL) == is_ids && p->tally.fault) return say_fault(s, p);
    }
  }
  return 0;
}

/* Take the columns that parts read, texts split into lists. */
static int open_views(state *s, const din_encoding *e) {
  const din_features *f = e->features;
  for (int32_t i = 0; i < f->num_sources; ++i) {
    const din_source *source = &f->sources[i];
    const din_view *view = &e->views[i];
    s->views[i] = *view;
    if (!view->is_given) {
      if (source->is_optional) continue;
      return din_say(e->error, e->error_size, "the column", "none", source->name, -1,
                     "");
    }
    if (view->column.num_rows != e->num_rows[source->side]) {
      char rule[60], got[32];
      snprintf(rule, sizeof rule, "%" PRId64 " rows, as its side of the batch has",
               e->num_rows[source->side]);
      snprintf(got, sizeof got, "%" PRId64, view->column.num_rows);
      return din_say(e->error, e->error_size, rule, got, source->name, -1, "");
    }
    if (source->written && view->kind == DIN_KIND_STRING && !view->is_list &&
        din_split_texts(e, source, view, &s->views[i], &s->memory[i])) {
      return -1;
    }
  }
  return 0;
}

static int encode(state *s) {
  const din_features *f = s->e.features;
  for (int32_t side = DIN_USER; side <= DIN_CANDIDATE; ++side) {
    for (int32_t i = 0; i < f->num_parts; ++i) {
      const din_part *part = &f->parts[i];
      if (part->side != side) continue;
      if (part->kind == DIN_PART_FIELD   ? prepare_field(s, part)
          : part->kind == DIN_PART_LISTS ? prepare_lists(s, i)
                                         : prepare_dense(s, i)) {
        return -1;
      }
    }
  }
  return run_jobs(s);
}

/* Room of `count` values of `size` bytes in one block of memory, aligned; NULL while
   there is none yet. */
static void *carve(char *memory, size_t *used, int32_t count, size_t size) {
  char *made = memory == NULL ? NULL : memory + *used;
  *used += ((size_t)count * size + 15) & ~(size_t)15;
  return made;
}

int din_features_encode(const din_encoding *e) {
  const din_features *f = e->features;
  state s = {.e = *e};
  char *memory = NULL;
  e->error[0] = '\0';
  for (int is_real = 0; is_real < 2; ++is_real) { /* once to count the bytes */
    size_t used = 0;
    s.views = carve(memory, &used, f->num_sources, sizeof *s.views);
    s.memory = carve(memory, &used, f->num_sources, sizeof *s.memory);
    s.columns = carve(memory, &used, f->num_readings + f->num_parts, sizeof *s.columns);
    s.codes = carve(memory, &used, f->num_readings, sizeof *s.codes);
    s.windows = carve(memory, &used, f->num_parts, sizeof *s.windows);
    s.jobs = carve(memory, &used, f->num_ids + f->num_parts, sizeof *s.jobs);
    if (is_real) break;
    memory = calloc(1, used + 16);
    if (memory == NULL) return no_memory(e, "batch");
  }
  s.e.views = s.views;
  const int failed = open_views(&s, e) || encode(&s);
  for (int32_t i = 0; i < f->num_parts; ++i) din_close_window(&s.windows[i]);
  for (int32_t i = 0; i < f->num_readings; ++i) free((void *)(uintptr_t)s.codes[i].ids);
  for (int32_t i = 0; i < f->num_sources; ++i) free(s.memory[i]);
  free(s.portions);
  free(memory);
  return failed ? -1 : 0;
}
