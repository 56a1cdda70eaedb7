// What proofs of products compute over an extension of their ring (`ring/extension.py` has the same words in NumPy).
//
// Kinds of words: 0 modulo 2^32, 1 modulo 2^64, whose extension is the Galois ring of degree 48, an element its 48
// coefficients; 2 bits in words of 64, whose extension is GF(2^64), an element one word. What is public is `weights`:
// elements whose coefficients are the bits of a word. Arrays of products are rows of n words.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr int kDegree = 48;
constexpr int kLow[] = {0, 2, 3, 5};  // X^48 = -(1 + X^2 + X^3 + X^5)
constexpr uint64_t kBlock = 32;       // words of a row at a time
constexpr uint64_t kRows = 32;        // at most, where each row meets each
constexpr uint64_t kGroup = 4;        // words whose sums are looked up together
constexpr int kPass = 16;             // coefficients at a time


template <typename V>
struct Aligned {  // zeros
  explicit Aligned(uint64_t count) : at(static_cast<V*>(std::aligned_alloc(64, count * sizeof(V)))) {
    std::memset(static_cast<void*>(at), 0, count * sizeof(V));
  }
  ~Aligned() { std::free(at); }
  Aligned(const Aligned&) = delete;
  V* const at;
};

namespace plain {
#define TARGET
#include "proofs_loops.h"
#undef TARGET
}  // namespace plain

#if defined(__x86_64__) && defined(__GNUC__)
namespace avx2 {
#define TARGET __attribute__((target("avx2,bmi2")))
#include "proofs_loops.h"
#undef TARGET
}  // namespace avx2
namespace avx512 {
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,bmi2,prefer-vector-width=512")))
#include "proofs_loops.h"
#undef TARGET
}  // namespace avx512

int level() {
  static const int found = __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                                   __builtin_cpu_supports("avx512vl")
                               ? 2
                               : static_cast<bool>(__builtin_cpu_supports("avx2"));
  return found;
}
#define AT_LEVEL(CALL) (level() == 2 ? avx512::CALL : level() == 1 ? avx2::CALL : plain::CALL)
#else
#define AT_LEVEL(CALL) plain::CALL
#endif

}  // namespace

extern "C" {

typedef uint32_t u32;
typedef uint64_t u64;

#define BY_KIND(CALL) (kind == 0 ? (void)(CALL(u32)) : (void)(CALL(u64)))
#define TO(T, p) static_cast<T*>(p)
#define OF(T, p) static_cast<const T*>(p)

void spuvm_proof_crossed(int kind, void* out, const void* x0, const void* x1, const void* y0, const void* y1,
                         const u64* weights, const void* a0, const void* a1, u64 rows, u64 n) {
#define CALL(T) AT_LEVEL(crossed<T>(TO(T, out), OF(T, x0), OF(T, x1), OF(T, y0), OF(T, y1), weights, OF(T, a0), OF(T, a1), rows, n))
  BY_KIND(CALL);
#undef CALL
}

void spuvm_proof_weighed(int kind, void* out, const void* z, const u64* weights, u64 rows, u64 n) {
#define CALL(T) AT_LEVEL(weighed<T>(TO(T, out), OF(T, z), weights, rows, n))
  BY_KIND(CALL);
#undef CALL
}

void spuvm_proof_folded(int kind, void* out, const void* v, const u64* weights, u64 rows, u64 n, u64 over, u64 along) {
#define CALL(T) AT_LEVEL(folded<T>(TO(T, out), OF(T, v), weights, rows, n, over, along))
  BY_KIND(CALL);
#undef CALL
}

void spuvm_proof_masked(int kind, void* out, const void* v, const void* a, const u64* weights, u64 n) {
#define CALL(T) AT_LEVEL(masked<T>(TO(T, out), OF(T, v), OF(T, a), weights, n))
  BY_KIND(CALL);
#undef CALL
}

void spuvm_proof_inner(int kind, void* out, const void* x, const void* y, u64 n) {
#define CALL(T) AT_LEVEL(inner<T>(TO(T, out), OF(T, x), OF(T, y), n))
  BY_KIND(CALL);
#undef CALL
}

// Of bits, for `proofs_of_bits.cc`.
void spuvm_proof_chosen(u64* sums, const u64* a0, const u64* a1, const u64 (*both)[kBlock], const u64 (*one)[kBlock],
                        u64 rows, u64 count) {
  AT_LEVEL(chosen(sums, a0, a1, both, one, rows, count));
}

void spuvm_proof_of_bits_folded(u64* out, const u64* v, const u64* weights, u64 rows, u64 n) {
  AT_LEVEL(bits_folded(out, v, weights, rows, n));
}

}  // extern "C"
