// What proofs of conjunctions compute over GF(2^64) = GF(2)[X] / (X^64 + X^4 + X^3 + X + 1): `proofs.cc` for bits.
//
// Bit i of a word is the coefficient of X^i. Of each word of a row its 64 bits are products by themselves, and what is
// folded of them are 64 elements, one a bit. x86-64 with carryless products; elsewhere NumPy does it.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define CARRYLESS __attribute__((target("pclmul,sse4.1")))
#define CARRYLESS_WIDE __attribute__((target("avx512f,avx512dq,vpclmulqdq,pclmul")))

namespace {

typedef uint64_t u64;
constexpr u64 kBits = 64, kBlock = 32, kRows = 32;  // the last two as in `proofs.cc`

CARRYLESS inline u64 reduced(__m128i x) {  // X^64 = X^4 + X^3 + X + 1
  const __m128i poly = _mm_set_epi64x(0, 0x1b);
  const __m128i once = _mm_clmulepi64_si128(x, poly, 0x01);  // the upper word; at most 68 bits
  const __m128i twice = _mm_clmulepi64_si128(once, poly, 0x01);
  return static_cast<u64>(_mm_cvtsi128_si64(_mm_xor_si128(_mm_xor_si128(x, once), twice)));
}

CARRYLESS inline __m128i times(u64 a, u64 b) {
  return _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(a)), _mm_cvtsi64_si128(static_cast<int64_t>(b)), 0);
}

// Some words of each row, those of y as y0 ^ y1 and as y0; what is missing of a block is zero.
struct Tile {
  alignas(64) u64 left[kRows][kBlock], right[kRows][kBlock], both[kRows][kBlock], one[kRows][kBlock], weights[kBlock];

  void fill(const u64* x0, const u64* x1, const u64* y0, const u64* y1, const u64* w, u64 rows, u64 n, u64 at) {
    const u64 count = n - at < kBlock ? n - at : kBlock;
    if (count < kBlock) std::memset(this, 0, sizeof *this);
    for (u64 r = 0; r < rows; ++r)
      for (u64 j = 0; j < count; ++j) {
        const u64 i = r * n + at + j;
        left[r][j] = x0[i], right[r][j] = x1[i], one[r][j] = y0[i], both[r][j] = y0[i] ^ y1[i];
      }
    std::memcpy(weights, w + at, count * sizeof(u64));
  }
};

// sums[l][m] ^= the sum of weights[j] (left[l][j] both[m][j] + right[l][j] one[m][j]), of 128 bits.
CARRYLESS void meet(__m128i* sums, const Tile& t, u64 rows) {
  for (u64 l = 0; l < rows; ++l)
    for (u64 m = 0; m < rows; ++m) {
      __m128i sum = sums[l * rows + m];
      for (u64 j = 0; j < kBlock; j += 2) {
        const auto at = [j](const u64* p) { return _mm_load_si128((const __m128i*)(p + j)); };
        const __m128i p = _mm_xor_si128(_mm_and_si128(at(t.left[l]), at(t.both[m])),
                                        _mm_and_si128(at(t.right[l]), at(t.one[m])));
        const __m128i w = at(t.weights);
        sum = _mm_xor_si128(sum, _mm_xor_si128(_mm_clmulepi64_si128(w, p, 0x00), _mm_clmulepi64_si128(w, p, 0x11)));
      }
      sums[l * rows + m] = sum;
    }
}

CARRYLESS_WIDE void meet_wide(__m128i* sums, const Tile& t, u64 rows) {
  for (u64 l = 0; l < rows; ++l)
    for (u64 m = 0; m < rows; ++m) {
      __m512i sum = _mm512_setzero_si512();
      for (u64 j = 0; j < kBlock; j += 8) {
        const __m512i p = _mm512_xor_si512(
            _mm512_and_si512(_mm512_load_si512(t.left[l] + j), _mm512_load_si512(t.both[m] + j)),
            _mm512_and_si512(_mm512_load_si512(t.right[l] + j), _mm512_load_si512(t.one[m] + j)));
        const __m512i w = _mm512_load_si512(t.weights + j);
        sum = _mm512_xor_si512(sum, _mm512_xor_si512(_mm512_clmulepi64_epi128(w, p, 0x00),
                                                     _mm512_clmulepi64_epi128(w, p, 0x11)));
      }
      const __m128i half = _mm_xor_si128(_mm512_extracti64x2_epi64(sum, 0), _mm512_extracti64x2_epi64(sum, 1));
      const __m128i rest = _mm_xor_si128(_mm512_extracti64x2_epi64(sum, 2), _mm512_extracti64x2_epi64(sum, 3));
      sums[l * rows + m] = _mm_xor_si128(sums[l * rows + m], _mm_xor_si128(half, rest));
    }
}

bool wide() {
  static const bool can = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("vpclmulqdq");
  return can;
}

}  // namespace

extern "C" {

void spuvm_proof_chosen(u64* sums, const u64* a0, const u64* a1, const u64 (*both)[kBlock], const u64 (*one)[kBlock],
                        u64 rows, u64 count);

int spuvm_proof_of_bits_ready() { return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"); }

CARRYLESS void spuvm_proof_of_bits_crossed(u64* out, const u64* x0, const u64* x1, const u64* y0, const u64* y1,
                                           const u64* weights, const u64* a0, const u64* a1, u64 rows, u64 n) {
  alignas(16) __m128i sums[kRows * kRows] = {};
  std::memset(out + rows * rows, 0, rows * sizeof(u64));
  Tile t;
  for (u64 at = 0; at < n; at += kBlock) {
    t.fill(x0, x1, y0, y1, weights, rows, n, at);
    (wide() ? meet_wide : meet)(sums, t, rows);
    spuvm_proof_chosen(out + rows * rows, a0 + at * kBits, a1 + at * kBits, t.both, t.one, rows,
                       n - at < kBlock ? n - at : kBlock);
  }
  for (u64 i = 0; i < rows * rows; ++i) out[i] = reduced(sums[i]);
}

CARRYLESS void spuvm_proof_of_bits_weighed(u64* out, const u64* z, const u64* weights, u64 rows, u64 n) {
  for (u64 l = 0; l < rows; ++l) {
    __m128i sum = _mm_setzero_si128();
    for (u64 w = 0; w < n; ++w) sum = _mm_xor_si128(sum, times(weights[w], z[l * n + w]));
    out[l] = reduced(sum);
  }
}

CARRYLESS void spuvm_proof_of_bits_masked(u64* out, const u64* v, const u64* a, const u64* weights, u64 n) {
  for (u64 w = 0; w < n; ++w) {
    u64 weight = weights[w];
    for (u64 b = 0; b < kBits; ++b) {
      out[w * kBits + b] = reduced(times(weight, v[w * kBits + b])) ^ a[w * kBits + b];
      weight = weight << 1 ^ (0x1b & (0 - (weight >> 63)));
    }
  }
}

CARRYLESS void spuvm_proof_of_bits_inner(u64* out, const u64* x, const u64* y, u64 n) {
  __m128i sum = _mm_setzero_si128();
  for (u64 i = 0; i < n * kBits; ++i) sum = _mm_xor_si128(sum, times(x[i], y[i]));
  *out = reduced(sum);
}

}  // extern "C"

#endif
