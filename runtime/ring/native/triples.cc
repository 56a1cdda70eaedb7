// What proofs of products do on whole arrays: random orders, summands of products, masked factors, what has to be zero.
//
// Kinds of words: 0 modulo 2^32, 1 modulo 2^64, 2 bits (exclusive or and conjunction) in words of 64.

#include <cstdint>

namespace {

template <typename T>
struct Sums {
  using Word = T;
  static T add(T a, T b) { return a + b; }
  static T subtract(T a, T b) { return a - b; }
  static T multiply(T a, T b) { return a * b; }
};

struct Bits {
  using Word = uint64_t;
  static Word add(Word a, Word b) { return a ^ b; }
  static Word subtract(Word a, Word b) { return a ^ b; }
  static Word multiply(Word a, Word b) { return a & b; }
};

// The summand of (x0 + x1 + x2)(y0 + y1 + y2) of who has the first two of each, plus m0 - m1.
template <typename R, typename T = typename R::Word>
void summand(T* out, const T* x0, const T* x1, const T* y0, const T* y1, const T* m0, const T* m1, uint64_t count) {
  for (uint64_t j = 0; j < count; ++j) {
    const T product = R::add(R::multiply(x0[j], R::add(y0[j], y1[j])), R::multiply(x1[j], y0[j]));
    out[j] = R::subtract(R::add(product, m0[j]), m1[j]);
  }
}

template <typename R, typename T = typename R::Word>
void masked(T* out, const T* x, const T* a, const uint32_t* order, uint64_t count) {
  for (uint64_t j = 0; j < count; ++j) out[j] = R::subtract(x[j], a[order[j]]);
}

// z - d b - e a - c, and less d e where `both` is set.
template <typename R, typename T = typename R::Word>
void left(T* out, const T* z, const T* d, const T* e, const T* a, const T* b, const T* c, const uint32_t* order,
          uint64_t both, uint64_t count) {
  const T all = both ? static_cast<T>(~T{0}) : T{0};
  for (uint64_t j = 0; j < count; ++j) {
    const uint32_t i = order[j];
    const T known = R::add(R::multiply(d[j], R::add(b[i], e[j] & all)), R::multiply(e[j], a[i]));
    out[j] = R::subtract(R::subtract(z[j], known), c[i]);
  }
}

}  // namespace

extern "C" {

// A uniform order of 0 .. count - 1 (Fisher and Yates), of count + spare random words. Place i takes one of the first
// i + 1 without bias (Lemire, ACM TOMACS 2019): a word that would bias it, one in 2^64 / (i + 1), is replaced by the next
// that is spare, if one is left.
void spuvm_triples_order(uint32_t* order, const uint64_t* words, uint64_t count, uint64_t spare) {
  const uint64_t *next = words + count, *end = next + spare;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t bound = i + 1;
    __uint128_t wide = static_cast<__uint128_t>(words[i]) * bound;
    while (static_cast<uint64_t>(wide) < bound && static_cast<uint64_t>(wide) < (0 - bound) % bound && next < end)
      wide = static_cast<__uint128_t>(*next++) * bound;
    const uint64_t at = static_cast<uint64_t>(wide >> 64);
    order[i] = order[at];
    order[at] = static_cast<uint32_t>(i);
  }
}

#define OF_KIND(CALL_32, CALL_64, CALL_BITS) \
  do {                                       \
    if (kind == 0) CALL_32;                  \
    else if (kind == 1) CALL_64;             \
    else CALL_BITS;                          \
  } while (0)
#define AS(T, p) static_cast<T*>(p)
#define OF(T, p) static_cast<const T*>(p)

void spuvm_triples_summand(int kind, void* out, const void* x0, const void* x1, const void* y0, const void* y1,
                           const void* m0, const void* m1, uint64_t count) {
#define RUN(R, T) summand<R>(AS(T, out), OF(T, x0), OF(T, x1), OF(T, y0), OF(T, y1), OF(T, m0), OF(T, m1), count)
  OF_KIND(RUN(Sums<uint32_t>, uint32_t), RUN(Sums<uint64_t>, uint64_t), RUN(Bits, uint64_t));
#undef RUN
}

void spuvm_triples_masked(int kind, void* out, const void* x, const void* a, const uint32_t* order, uint64_t count) {
#define RUN(R, T) masked<R>(AS(T, out), OF(T, x), OF(T, a), order, count)
  OF_KIND(RUN(Sums<uint32_t>, uint32_t), RUN(Sums<uint64_t>, uint64_t), RUN(Bits, uint64_t));
#undef RUN
}

void spuvm_triples_left(int kind, void* out, const void* z, const void* d, const void* e, const void* a, const void* b,
                        const void* c, const uint32_t* order, uint64_t both, uint64_t count) {
#define RUN(R, T) \
  left<R>(AS(T, out), OF(T, z), OF(T, d), OF(T, e), OF(T, a), OF(T, b), OF(T, c), order, both, count)
  OF_KIND(RUN(Sums<uint32_t>, uint32_t), RUN(Sums<uint64_t>, uint64_t), RUN(Bits, uint64_t));
#undef RUN
}

}  // extern "C"
