// What the parts of the vector engine share: operations, views of arrays, programs.

#pragma once

#include <cstdint>
#include <functional>
#include <vector>

typedef void (*Function)(void* d, const void* a, const void* b, const void* c, int64_t n);
typedef void (*Product)(void* d, const void* a, const void* b, int64_t n);

struct Operation {
  const char* name;
  Function vector, scalar;  // scalar: b is one element; null where there is no b
};

struct Loops {
  const Operation* operations;
  const Product *addmul, *inner;  // by the logarithm of the element's bytes
  int count;
};

int best_level();  // the best instruction set of this processor: 0 plain, 1 AVX2, 2 AVX-512
Loops loops(int level);

constexpr int kRank = 12;

// Elements of an array in row-major order of `size`: element i_0, i_1, ... lies at offset + sum of i_j stride_j, in
// bytes.
struct View {
  int64_t array = 0, offset = 0;
  int rank = 0;
  int64_t size[kRank], stride[kRank];

  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= size[i];
    return n;
  }
};

// Copies elements first .. first + n - 1 of a view to consecutive memory, or back.
void load(const View& view, const uint8_t* array, int width, int64_t first, int64_t n, uint8_t* to);
void store(const View& view, uint8_t* array, int width, int64_t first, int64_t n, const uint8_t* from);

// Folds n consecutive elements into the first, by halves.
void fold(Function f, int64_t width, uint8_t* x, int64_t n);

// Runs body(0) .. body(count - 1), on up to `threads` threads; the caller is one of them.
void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& body);

// Operations on whole arrays: see calls.cc. `base` gives the memory of an array by its number.
struct Context {
  uint8_t* const* base;
  int threads;
  const Loops& loops;
};
void call(int kind, const std::vector<int64_t>& parameters, const std::vector<View>& views, const Context& context);
enum Kind { kCopy = 1, kReduce = 2, kDot = 3, kGather = 4, kScan = 5, kMatmul = 6, kMatmulWide = 7 };
