// Threads of the vector engine: made once, woken for work that is worth it.

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#if !defined(_WIN32)
#include <unistd.h>
#endif

#include "engine.h"

namespace {

class Pool {
 public:
  // What is left when all threads are busy for another caller runs on the caller's thread alone.
  void run(int threads, int64_t count, const std::function<void(int64_t)>& body) {
    std::unique_lock<std::mutex> only(one_caller_, std::try_to_lock);
    if (!only.owns_lock()) {
      for (int64_t i = 0; i < count; ++i) body(i);
      return;
    }
    while ((int)workers_.size() < threads - 1) workers_.emplace_back([this, id = (int)workers_.size()] { work(id); });
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = &body;
      count_ = count;
      next_.store(0, std::memory_order_relaxed);
      wanted_ = threads - 1;
      running_ = 0;
      ++round_;
    }
    wake_.notify_all();
    take(body, count);
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;  // who has not begun need not
    done_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  void take(const std::function<void(int64_t)>& body, int64_t count) {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
  }

  void work(int id) {
    uint64_t seen = 0;
    for (;;) {
      const std::function<void(int64_t)>* body;
      int64_t count;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (id >= wanted_) continue;
        ++running_;
        body = body_;
        count = count_;
      }
      take(*body, count);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex one_caller_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const std::function<void(int64_t)>* body_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t count_ = 0;
  int wanted_ = 0, running_ = 0;
  uint64_t round_ = 0;
};

// A process made by fork has none of its parent's threads: it makes a pool of its own. Pools are never destroyed.
Pool& pool() {
  static std::atomic<Pool*> current{new Pool};
#if !defined(_WIN32)
  static std::atomic<int> owner{(int)getpid()};
  const int me = (int)getpid();
  int was = owner.load();
  if (was != me && owner.compare_exchange_strong(was, me)) current.store(new Pool);
#endif
  return *current.load();
}

}  // namespace

void parallel_for(int threads, int64_t count, const std::function<void(int64_t)>& body) {
  if (threads <= 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  pool().run((int)std::min<int64_t>(threads, count), count, body);
}
