// Comparisons by keys as operations of the engine, see keyed.cc: of 64-bit words, with keys and roots of several a number.

#pragma once

#include <cstdint>

#define KEYED(EACH) EACH(less_63) EACH(less_31) EACH(equal_64) EACH(equal_32)

// d: the keys, n words in all; a: what is compared with; b and c: the roots of the two parties, two words each.
// d: n shares of a bit, in bytes; a: public words; b: keys; c: this party's roots.
#define DECLARED(NAME)                                                                 \
  void NAME##_keys(void* d, const void* a, const void* b, const void* c, int64_t n);   \
  void NAME##_first(void* d, const void* a, const void* b, const void* c, int64_t n);  \
  void NAME##_second(void* d, const void* a, const void* b, const void* c, int64_t n);
KEYED(DECLARED)
#undef DECLARED
