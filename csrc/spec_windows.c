/* Which elements of each list are kept: kernels/window.pxi without Python. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spec.h"

#define MAX_ROWS (INT64_MAX / 64)

static int64_t *numbers(int64_t count) {
  return malloc(((size_t)count + 1) * sizeof(int64_t));
}

void din_close_window(din_list_window *w) {
  for (int i = 0; i < 3; ++i) free(w->arrays[i]);
  free(w->kept);
  memset(w, 0, sizeof *w);
}

int din_read_whole(const din_encoding *e, const din_column *column, const char *name,
                   int64_t *out, uint8_t *valid) {
  din_tally tally = {0};
  if (column->num_rows == 0) return 0;
  din_read_scalars_int64(column, 0, out, valid, &tally);
  if (tally.fault == DIN_FINE) return 0;
  return din_say_fault(e, column, name, &tally, "a whole number", "the type");
}

/* Keep as many elements as a column of lengths says. */
static int take(const din_encoding *e, const din_part *part, const int64_t *lengths,
                din_list_window *w) {
  const din_source *source = &e->features->sources[part->lengths_source];
  const din_ids *ids = &e->features->ids[part->first_ids];
  const int32_t first = e->features->readings[ids->first_reading].source;
  din_column column;
  if (din_require(e, part->lengths_source, DIN_READS_INT64, 0, 0, &column)) return -1;
  const int64_t num_rows = column.num_rows;
  uint8_t *valid = malloc((size_t)num_rows + 1);
  if (valid == NULL) {
    return din_say(e->error, e->error_size, "memory", "none", source->name, -1, "");
  }
  int failed = din_read_whole(e, &column, source->name, w->kept, valid);
  for (int64_t row = 0; row < num_rows && !failed; ++row) {
    if (valid[row] && w->kept[row] >= 0 && w->kept[row] <= lengths[row]) continue;
    char rule[200], got[32] = "null";
    snprintf(rule, sizeof rule, "a length in [0, %" PRId64 "], the length of `%.100s`",
             lengths[row], e->features->sources[first].name);
    if (valid[row]) snprintf(got, sizeof got, "%" PRId64, w->kept[row]);
    failed = din_say(e->error, e->error_size, rule, got, source->name, row, "");
  }
  free(valid);
  w->window.kept = w->kept;
  return failed;
}

int din_open_window(const din_encoding *e, const din_part *part,
                    const din_column *first, const int64_t *lengths,
                    din_list_window *w) {
  const int64_t num_rows = e->num_rows[part->side];
  memset(w, 0, sizeof *w);
  w->window.newest_first = part->newest_first;
  w->kept = numbers(num_rows);
  if (w->kept == NULL) goto no_memory;
  if (part->lengths_source >= 0 && e->views[part->lengths_source].is_given) {
    return take(e, part, lengths, w);
  }
  if (!part->has_pad) {
    memcpy(w->kept, lengths, (size_t)num_rows * sizeof *lengths);
    return 0;
  }
  w->window.kept = w->kept;
  w->arrays[0] = numbers(num_rows);
  if (w->arrays[0] == NULL) goto no_memory;
  if (!part->drops_pad) {
    din_trim_rows(first, &part->pad, w->arrays[0], w->kept);
    w->window.skip = w->arrays[0];
    return 0;
  }
  int64_t total = 0;
  for (int64_t row = 0; row < num_rows; ++row) {
    w->arrays[0][row] = total;
    if (lengths[row] > MAX_ROWS - total) goto no_memory;
    total += lengths[row];
  }
  w->arrays[1] = numbers(total);
  if (w->arrays[1] == NULL) goto no_memory;
  din_drop_pads(first, &part->pad, lengths, w->arrays[0], w->arrays[1], w->kept);
  w->window.position_start = w->arrays[0];
  w->window.positions = w->arrays[1];
  return 0;
no_memory:
  return din_say(e->error, e->error_size, "memory for its lists", "none", part->name,
                 -1, "");
}

int din_check_padding(const din_encoding *e, const din_part *part,
                      const din_column *column, const char *name, const int64_t *kept) {
  const int64_t num_rows = column->num_rows;
  int64_t *skip = numbers(num_rows), *inside = numbers(num_rows);
  int failed = 0;
  if (skip == NULL || inside == NULL) {
    failed = din_say(e->error, e->error_size, "memory", "none", name, -1, "");
  } else {
    din_trim_rows(column, &part->pad, skip, inside);
  }
  for (int64_t row = 0; row < num_rows && !failed; ++row) {
    if (kept[row] != 0 || inside[row] == 0) continue;
    char rule[160];
    if (part->pad.data != NULL) {
      snprintf(rule, sizeof rule, "only '%.60s' in a history of length 0",
               (const char *)part->pad.data);
    } else {
      snprintf(rule, sizeof rule, "only %" PRId64 " in a history of length 0",
               part->pad.number);
    }
    failed = din_say(e->error, e->error_size, rule, "another element", name, row, "");
  }
  free(skip);
  free(inside);
  return failed;
}
