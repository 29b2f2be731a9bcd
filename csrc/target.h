/*
 * DIN_TARGET("avx2"): the functions up to DIN_END_TARGET use these instructions.
 * DIN_RARE_TARGET, DIN_END_RARE_TARGET: nothing with DIN_EMULATE, where tests have the
 * operations in plain C.
 */
#ifndef DIN_TARGET_H
#define DIN_TARGET_H

#if defined(_WIN32) && !defined(__clang__)
#error "expected clang: on Windows GCC does not align AVX vectors on the stack"
#endif

#define DIN_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define DIN_TARGET(names) \
  DIN_PRAGMA(clang attribute push(__attribute__((target(names))), apply_to = function))
#define DIN_END_TARGET DIN_PRAGMA(clang attribute pop)
#else
#define DIN_TARGET(names) DIN_PRAGMA(GCC target(names))
#define DIN_END_TARGET
#endif
#if defined(DIN_EMULATE)
#define DIN_RARE_TARGET(names)
#define DIN_END_RARE_TARGET
#else
#define DIN_RARE_TARGET(names) DIN_TARGET(names)
#define DIN_END_RARE_TARGET DIN_END_TARGET
#endif

#endif /* DIN_TARGET_H */
