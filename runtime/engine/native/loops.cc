// The tables of element-wise operations, for each instruction set; which one is used is settled at run time.

#include "engine.h"
#include "keyed.h"

namespace {

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef uint64_t wide64 __attribute__((may_alias));

#if defined(__x86_64__)
#if defined(__clang__)
#define WIDEST ""
#else
#define WIDEST ",prefer-vector-width=512"
#endif
#define LOOPS_NAMESPACE avx512
#define LOOPS_TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,bmi2" WIDEST)))
#include "loops.h"

#define LOOPS_NAMESPACE avx2
#define LOOPS_TARGET __attribute__((target("avx2,bmi2")))
#include "loops.h"
#endif

#define LOOPS_NAMESPACE plain
#define LOOPS_TARGET
#include "loops.h"

int detect() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) return 1;
#endif
  return 0;
}

}  // namespace

// A function: a constant of this file may be set after those of another that start from it.
int best_level() {
  static const int best = detect();
  return best;
}

Loops loops(int level) {
#if defined(__x86_64__)
  if (level == 2) return {avx512::kOperations, avx512::kAddmul, avx512::kInner, plain::kCount};
  if (level == 1) return {avx2::kOperations, avx2::kAddmul, avx2::kInner, plain::kCount};
#endif
  return {plain::kOperations, plain::kAddmul, plain::kInner, plain::kCount};
}
