/* Values of a spec's sections, by kind. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "spec_parsing.h"

static void show(const din_json *json, char *out, size_t size) {
  static const char *const kinds[] = {"null", "false", "true"};
  if (json == NULL) {
    snprintf(out, size, "nothing");
  } else if (json->kind == DIN_JSON_STRING) {
    snprintf(out, size, "'%.60s'", json->text);
  } else if (json->kind == DIN_JSON_NUMBER || json->kind > DIN_JSON_TABLE) {
    snprintf(out, size, "%.60s", json->text);
  } else {
    snprintf(out, size, "%s",
             json->kind == DIN_JSON_LIST    ? "a list"
             : json->kind == DIN_JSON_TABLE ? "a table"
                                            : kinds[json->kind]);
  }
}

int din_parse_fail(din_parser *p, const din_section *s, const char *key,
                   const char *rule, const din_json *got) {
  char place[2 * DIN_PLACE], shown[80];
  if (p->failed) return 0;
  p->failed = 1;
  show(got, shown, sizeof shown);
  snprintf(place, sizeof place, "%s%s%s", s ? s->place : "",
           s && s->place[0] && key[0] ? "." : "", key);
  din_say(p->error, p->error_size, rule, got ? shown : "something else", place, -1, "");
  return 0;
}

din_section din_section_at(const din_section *s, const char *key,
                           const din_json *json) {
  din_section made = {.json = json};
  snprintf(made.place, sizeof made.place, "%.120s%s%.70s", s->place,
           s->place[0] ? "." : "", key);
  return made;
}

const din_json *din_take(din_parser *p, const din_section *s, const char *key,
                         int32_t kind, int is_needed) {
  static const char *const rules[] = {"null",     "false",  "true",   "a number",
                                      "a string", "a list", "a table"};
  const din_json *found = din_json_member(s->json, key);
  if (p->failed) return NULL;
  if (found == NULL ? is_needed : found->kind != kind) {
    din_parse_fail(p, s, key, rules[kind], found);
    return NULL;
  }
  return found;
}

const char *din_own_text(din_parser *p, const char *text, int64_t size) {
  char *made = din_own(p->features, (uint64_t)size + 1);
  if (made == NULL) {
    din_parse_fail(p, NULL, "spec", "memory for it", NULL);
    return "";
  }
  return memcpy(made, text, (size_t)size);
}

const char *din_take_text(din_parser *p, const din_section *s, const char *key,
                          const char *otherwise, int is_needed) {
  const din_json *found = din_take(p, s, key, DIN_JSON_STRING, is_needed);
  if (found == NULL) return otherwise;
  if (found->size == 0 || memchr(found->text, 0, (size_t)found->size) != NULL) {
    din_parse_fail(p, s, key, "a string of at least one character, none of them 0",
                   found);
    return otherwise;
  }
  return din_own_text(p, found->text, found->size);
}

int din_take_choice(din_parser *p, const din_section *s, const char *key,
                    const char *const *choices, int otherwise) {
  char rule[160] = "one of ";
  const din_json *found = din_take(p, s, key, DIN_JSON_STRING, otherwise == -2);
  if (found == NULL) return otherwise == -2 ? 0 : otherwise;
  for (int i = 0; choices[i] != NULL; ++i) {
    if (choices[i][0] == '\0') continue;
    if (din_json_is(found->text, found->size, choices[i])) return i;
    if (strlen(rule) > 8) strncat(rule, ", ", sizeof rule - strlen(rule) - 1);
    strncat(rule, choices[i], sizeof rule - strlen(rule) - 1);
  }
  return din_parse_fail(p, s, key, rule, found);
}

int din_take_flag(din_parser *p, const din_section *s, const char *key, int otherwise) {
  const din_json *found = din_json_member(s->json, key);
  if (found == NULL) return otherwise;
  if (found->kind == DIN_JSON_TRUE) return 1;
  if (found->kind == DIN_JSON_FALSE) return 0;
  return din_parse_fail(p, s, key, "true or false", found);
}

int64_t din_take_size(din_parser *p, const din_section *s, const char *key,
                      int64_t otherwise) {
  const din_json *found = din_json_member(s->json, key);
  if (found == NULL && otherwise >= 0) return otherwise;
  if (found == NULL || !found->is_whole || found->is_large ||
      (int64_t)found->whole < 1 || (int64_t)found->whole > INT32_MAX) {
    din_parse_fail(p, s, key, "a positive whole number below 2**31", found);
    return 1;
  }
  return (int64_t)found->whole;
}

double din_take_number(din_parser *p, const din_section *s, const char *key,
                       double otherwise) {
  const din_json *found = din_json_member(s->json, key);
  if (found == NULL) return otherwise;
  if (found->kind != DIN_JSON_NUMBER || !isfinite(found->number)) {
    din_parse_fail(p, s, key, "a finite number", found);
    return otherwise;
  }
  return found->number;
}

void din_check_keys(din_parser *p, const din_section *s, const char *const *known) {
  if (s->json->kind != DIN_JSON_TABLE) {
    din_parse_fail(p, s, "", "a table", s->json);
    return;
  }
  for (const din_json *m = s->json->first; m != NULL && !p->failed; m = m->next) {
    int i = 0;
    while (known[i] != NULL && !din_json_is(m->key, m->key_size, known[i])) ++i;
    if (known[i] == NULL) {
      din_parse_fail(p, s, m->key, "a key that this version knows", NULL);
    }
  }
}
