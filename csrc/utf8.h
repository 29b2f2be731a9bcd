/* Whether bytes are UTF-8 (RFC 3629). */
#ifndef DIN_UTF8_H
#define DIN_UTF8_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How many of `left` > 0 bytes the UTF-8 character at `text` has; 0 where none begins. */
static inline int64_t din_utf8_size(const char *text, int64_t left) {
  const unsigned char *c = (const unsigned char *)text;
  const unsigned char lead = c[0];
  const int64_t size = lead < 0x80                    ? 1
                       : lead >= 0xC2 && lead <= 0xDF ? 2
                       : lead >= 0xE0 && lead <= 0xEF ? 3
                       : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                      : 0;
  if (size > left) return 0;
  for (int64_t i = 1; i < size; ++i) {
    if ((c[i] & 0xC0) != 0x80) return 0;
  }
  const int is_overlong =
      (lead == 0xE0 && c[1] < 0xA0) || (lead == 0xF0 && c[1] < 0x90);
  const int is_beyond = (lead == 0xED && c[1] > 0x9F) || (lead == 0xF4 && c[1] > 0x8F);
  return is_overlong || is_beyond ? 0 : size;
}

#ifdef __cplusplus
}
#endif

#endif /* DIN_UTF8_H */
