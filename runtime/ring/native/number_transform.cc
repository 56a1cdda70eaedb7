// Arithmetic modulo primes below 2^50 on whole arrays, and the negacyclic number-theoretic transform.
//
// A product a b mod p is a b - q p in wrapping 64-bit words with q = floor(a b / p) by doubles: their error is below one
// unit, so one correction either way makes it exact. All loops are free of branches on data.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

namespace {

constexpr int kLanes = 8;
constexpr int kTail = 64;  // elements of a block whose last three stages are done lane by lane

struct Modulus {
  uint64_t p;
  double inverse;
};

INLINE uint64_t fold(int64_t r, uint64_t p) {
  r += (r >> 63) & static_cast<int64_t>(p);
  const int64_t s = r - static_cast<int64_t>(p);
  return static_cast<uint64_t>(s + ((s >> 63) & static_cast<int64_t>(p)));
}

INLINE uint64_t times(uint64_t a, uint64_t b, Modulus m) {
  const double quotient = static_cast<double>(static_cast<int64_t>(a)) * static_cast<double>(static_cast<int64_t>(b)) * m.inverse;
  const uint64_t q = static_cast<uint64_t>(static_cast<int64_t>(quotient));
  return fold(static_cast<int64_t>(a * b - q * m.p), m.p);
}

INLINE uint64_t plus(uint64_t a, uint64_t b, uint64_t p) {
  const int64_t s = static_cast<int64_t>(a + b - p);
  return static_cast<uint64_t>(s + ((s >> 63) & static_cast<int64_t>(p)));
}

INLINE uint64_t minus(uint64_t a, uint64_t b, uint64_t p) {
  const int64_t s = static_cast<int64_t>(a - b);
  return static_cast<uint64_t>(s + ((s >> 63) & static_cast<int64_t>(p)));
}

INLINE uint64_t below(uint64_t a, Modulus m) {  // a < 2^52 modulo m
  const uint64_t q = static_cast<uint64_t>(static_cast<int64_t>(static_cast<double>(static_cast<int64_t>(a)) * m.inverse));
  return fold(static_cast<int64_t>(a - q * m.p), m.p);
}

// One butterfly on two rows of `length`: forward (u + v w, u - v w), backward (u + v, (u - v) w).
template <bool forward>
INLINE void butterflies(uint64_t* a, uint64_t* b, uint64_t length, uint64_t w, Modulus m) {
#pragma GCC ivdep
  for (uint64_t i = 0; i < length; ++i) {
    const uint64_t u = a[i], v = forward ? times(b[i], w, m) : b[i];
    a[i] = plus(u, v, m.p);
    b[i] = forward ? minus(u, v, m.p) : times(minus(u, v, m.p), w, m);
  }
}

// The same with another root in each lane.
template <bool forward>
INLINE void lanes(uint64_t* a, uint64_t* b, const uint64_t* w, Modulus m) {
#pragma GCC ivdep
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t u = a[i], v = forward ? times(b[i], w[i], m) : b[i];
    a[i] = plus(u, v, m.p);
    b[i] = forward ? minus(u, v, m.p) : times(minus(u, v, m.p), w[i], m);
  }
}

// The stages of stride 4, 2 and 1 of 64 elements: row k holds elements k, k + 8, ... of them.
template <bool forward>
INLINE void last_stages(uint64_t* data, uint64_t n, uint64_t block, const uint64_t* roots, Modulus m) {
  uint64_t rows[kLanes][kLanes], w[7][kLanes];
  for (int k = 0; k < kLanes; ++k)
    for (int l = 0; l < kLanes; ++l) rows[k][l] = data[kLanes * l + k];
  for (int l = 0; l < kLanes; ++l) {
    const uint64_t group = block * kLanes + l;
    w[0][l] = roots[n / 8 + group];
    for (int g = 0; g < 2; ++g) w[1 + g][l] = roots[n / 4 + 2 * group + g];
    for (int g = 0; g < 4; ++g) w[3 + g][l] = roots[n / 2 + 4 * group + g];
  }
  for (int step = 0; step < 3; ++step) {
    const int stride = forward ? 4 >> step : 1 << step;
    const int groups = 4 / stride;
    for (int g = 0; g < groups; ++g)
      for (int k = 0; k < stride; ++k)
        lanes<forward>(rows[2 * stride * g + k], rows[2 * stride * g + k + stride], w[groups - 1 + g], m);
  }
  for (int k = 0; k < kLanes; ++k)
    for (int l = 0; l < kLanes; ++l) data[kLanes * l + k] = rows[k][l];
}

CLONES void forward_transform(uint64_t* data, uint64_t n, const uint64_t* roots, uint64_t p) {
  const Modulus m{p, 1.0 / static_cast<double>(p)};
  const uint64_t last = n >= kTail ? kLanes : 1;
  uint64_t groups = 1;
  for (uint64_t t = n / 2; t >= last; t /= 2, groups *= 2)
    for (uint64_t i = 0; i < groups; ++i) butterflies<true>(data + 2 * i * t, data + 2 * i * t + t, t, roots[groups + i], m);
  if (n >= kTail)
    for (uint64_t b = 0; b < n / kTail; ++b) last_stages<true>(data + kTail * b, n, b, roots, m);
}

CLONES void backward_transform(uint64_t* data, uint64_t n, const uint64_t* roots, uint64_t p, uint64_t scale) {
  const Modulus m{p, 1.0 / static_cast<double>(p)};
  if (n >= kTail)
    for (uint64_t b = 0; b < n / kTail; ++b) last_stages<false>(data + kTail * b, n, b, roots, m);
  for (uint64_t t = n >= kTail ? kLanes : 1; t < n; t *= 2) {
    const uint64_t groups = n / (2 * t);
    for (uint64_t i = 0; i < groups; ++i) butterflies<false>(data + 2 * i * t, data + 2 * i * t + t, t, roots[groups + i], m);
  }
  for (uint64_t i = 0; i < n; ++i) data[i] = times(data[i], scale, m);
}

CLONES void product_row(uint64_t* out, const uint64_t* a, const uint64_t* b, uint64_t n, uint64_t p, int add) {
  const Modulus m{p, 1.0 / static_cast<double>(p)};
  if (add) {
#pragma GCC ivdep
    for (uint64_t i = 0; i < n; ++i) out[i] = plus(out[i], times(a[i], b[i], m), p);
  } else {
#pragma GCC ivdep
    for (uint64_t i = 0; i < n; ++i) out[i] = times(a[i], b[i], m);
  }
}

CLONES void scaled_row(uint64_t* out, const uint64_t* a, uint64_t factor, uint64_t n, uint64_t p, int add) {
  const Modulus m{p, 1.0 / static_cast<double>(p)};
#pragma GCC ivdep
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t r = times(below(a[i], m), factor, m);
    out[i] = add ? plus(out[i], r, p) : r;
  }
}

CLONES void quotients(double* out, const uint64_t* y, uint64_t n, uint64_t p, int add) {
  const double inverse = 1.0 / static_cast<double>(p);
#pragma GCC ivdep
  for (uint64_t i = 0; i < n; ++i) {
    const double share = static_cast<double>(static_cast<int64_t>(y[i])) * inverse;
    out[i] = add ? out[i] + share : share;
  }
}

CLONES void without_multiples(uint64_t* out, const double* multiples, uint64_t whole, uint64_t n, uint64_t p) {
  const Modulus m{p, 1.0 / static_cast<double>(p)};
#pragma GCC ivdep
  for (uint64_t i = 0; i < n; ++i) {
    const uint64_t alpha = static_cast<uint64_t>(static_cast<int64_t>(multiples[i] + 0.5));
    out[i] = minus(out[i], times(alpha, whole, m), p);
  }
}

}  // namespace

extern "C" {

// data[rows][limbs][n] in place; roots[limbs][n], scale[limbs] = 1/n modulo each prime (backward only).
void spuvm_transform(int backward, uint64_t* data, uint64_t rows, uint64_t limbs, uint64_t n, const uint64_t* primes,
                     const uint64_t* roots, const uint64_t* scale) {
  for (uint64_t r = 0; r < rows; ++r)
    for (uint64_t l = 0; l < limbs; ++l, data += n) {
      if (backward)
        backward_transform(data, n, roots + l * n, primes[l], scale[l]);
      else
        forward_transform(data, n, roots + l * n, primes[l]);
    }
}

// out[rows][limbs][n] = (out +) a b; b has as many rows, or one for all.
void spuvm_mod_product(uint64_t* out, const uint64_t* a, const uint64_t* b, uint64_t rows, uint64_t limbs, uint64_t n,
                       const uint64_t* primes, int one_row, int add) {
  for (uint64_t r = 0; r < rows; ++r)
    for (uint64_t l = 0; l < limbs; ++l) {
      const uint64_t at = (r * limbs + l) * n;
      product_row(out + at, a + at, b + (one_row ? l * n : at), n, primes[l], add);
    }
}

// From residues in[from][n] of x to those of its representative in (-P/2, P/2), P the product of `old`: out[to][n].
// inverses[from] = (P / p_i)^-1 mod p_i, factors[from][to] = P / p_i, whole[to] = P, both modulo the new primes.
// scratch: n words and n doubles.
void spuvm_mod_convert(uint64_t* out, const uint64_t* in, uint64_t n, uint64_t from, const uint64_t* old, uint64_t to,
                       const uint64_t* primes, const uint64_t* inverses, const uint64_t* factors, const uint64_t* whole,
                       uint64_t* words, double* multiples) {
  for (uint64_t i = 0; i < from; ++i) {
    scaled_row(words, in + i * n, inverses[i], n, old[i], 0);
    quotients(multiples, words, n, old[i], i > 0);
    for (uint64_t j = 0; j < to; ++j) scaled_row(out + j * n, words, factors[i * to + j], n, primes[j], i > 0);
  }
  for (uint64_t j = 0; j < to; ++j) without_multiples(out + j * n, multiples, whole[j], n, primes[j]);
}

}  // extern "C"
