// What the products share: views of matrices, memory of a thread, and tasks on XLA's threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& body);  // of the vector engine

extern "C" int spuvm_ring_level();  // the instruction set in use: 0 plain, 1 AVX2, 2 AVX-512

namespace {

template <typename T>
struct Matrix {
  T* data;
  int64_t rows, columns, row_stride, column_stride;

  Matrix block(int64_t row, int64_t column, int64_t height, int64_t width) const {
    return {data + row * row_stride + column * column_stride, std::min(height, rows - row),
            std::min(width, columns - column), row_stride, column_stride};
  }
  Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
};

constexpr size_t kHugePage = size_t{1} << 21;

// Memory a thread keeps: the two packed operands of its task. In huge pages where the system has them: pages of 4 KiB
// that happen to share sets of the second-level cache make a product a quarter slower, in all of a process's life.
template <typename T>
T* scratch(int64_t count) {
  struct Free {
    void operator()(void* p) const { ::operator delete(p, std::align_val_t{kHugePage}); }
  };
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  const size_t need = static_cast<size_t>(count) * sizeof(T);
  if (need > size) {
    size = (need + kHugePage - 1) / kHugePage * kHugePage;
    memory.reset(::operator new(size, std::align_val_t{kHugePage}));
#if defined(MADV_HUGEPAGE)
    madvise(memory.get(), size, MADV_HUGEPAGE);  // a wish: the memory is there without it
#endif
  }
  return static_cast<T*>(memory.get());
}

// The threads of the vector engine, where XLA's are not at hand.
struct EngineThreads {
  int64_t count;
  int64_t num_threads() const { return count; }
};

// Runs tasks 0 .. count - 1 on the pool and on the calling thread. The caller takes tasks itself and
// then waits only for those already begun, so a pool with no free thread cannot block it.
template <typename Function>
void parallel(EngineThreads& pool, int64_t count, const Function& function) {
  parallel_for((int)pool.count, count, function);
}

template <typename Function>
void parallel(ffi::ThreadPool& pool, int64_t count, const Function& function) {
  struct State {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable finished;
    int64_t done = 0;
  };
  auto state = std::make_shared<State>();
  const Function* body = &function;  // used only while a task is held, which the caller outlives
  auto work = [state, count, body] {
    int64_t done = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++done) (*body)(i);
    if (!done) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    state->done += done;
    if (state->done == count) state->finished.notify_one();
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(work)(work));
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done == count; });
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace
