// SPDX-License-Identifier: MIT
#include "thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

namespace ts {
namespace {

// How long an idle worker looks for the next job before it sleeps: longer than the Python between
// two kernels of one decode step, shorter than anything a neighbour on the machine would notice.
constexpr std::chrono::microseconds kSpin{60};

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// Spins for at most kSpin until done() holds; true if it does.
template <class Done>
bool spin_until(const Done& done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return done();
}

thread_local int tls_index = 0;
thread_local bool tls_in_job = false;

class Pool {
 public:
  std::mutex lock;  // held by KernelLock for the whole kernel

  int threads() const { return threads_; }

  int slots() const {
    const int running = running_.load(std::memory_order_relaxed);
    return (running > threads_ - 1 ? running : threads_ - 1) + 1;
  }

  void set_threads(int n) {
    if (n < 1 || n > kMaxThreads) {
      throw std::invalid_argument("threads must be in 1.." + std::to_string(kMaxThreads));
    }
    threads_ = n;
  }

  void run(std::int64_t chunks, ChunkFunction fn, void* context) {
    if (chunks <= 1 || threads_ == 1 || tls_in_job || chunks > INT32_MAX) {
      for (std::int64_t c = 0; c < chunks; ++c) {
        fn(context, c);
        count_progress();
      }
      return;
    }
    start_workers();
    fn_.store(fn, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    total_.store(chunks, std::memory_order_relaxed);
    pending_.store(static_cast<std::int32_t>(chunks), std::memory_order_relaxed);
    const std::uint64_t epoch = (state_.load(std::memory_order_relaxed) >> 32) + 1;
    state_.store(epoch << 32 | static_cast<std::uint64_t>(chunks), std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      wake_.fetch_add(1, std::memory_order_release);
      wake_.notify_all();
    }
    tls_in_job = true;
    claim_chunks();
    tls_in_job = false;
    wait_for_claimed();
    count_progress();  // workers may have done every chunk
  }

  void count_progress_at(std::uint64_t* word) { progress_.store(word, std::memory_order_relaxed); }

  // In a forked child the workers do not exist; new ones start with the next job.
  void after_fork_in_child() {
    running_.store(0, std::memory_order_relaxed);
    sleepers_.store(0, std::memory_order_relaxed);
    state_.store(0, std::memory_order_relaxed);
  }

 private:
  // The caller alone counts, and there is one at a time: a load and a store do.
  void count_progress() {
    if (tls_index != 0) return;
    const std::atomic_ref word(*progress_.load(std::memory_order_relaxed));
    word.store(word.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  void start_workers() {
    while (running_.load(std::memory_order_relaxed) < threads_ - 1) {
      const int index = running_.load(std::memory_order_relaxed) + 1;
      std::thread([this, index] { worker(index); }).detach();
      running_.store(index, std::memory_order_relaxed);
    }
  }

  // The low half of state_ counts unclaimed chunks, the high half numbers the job. The job is read
  // before the claim: if the claim succeeds, the job had an unclaimed chunk all along, so nobody
  // can have replaced it in between.
  void claim_chunks() {
    std::uint64_t state = state_.load(std::memory_order_acquire);
    while (static_cast<std::uint32_t>(state) != 0) {
      const ChunkFunction fn = fn_.load(std::memory_order_relaxed);
      void* const context = context_.load(std::memory_order_relaxed);
      const std::int64_t total = total_.load(std::memory_order_relaxed);
      if (!state_.compare_exchange_weak(state, state - 1, std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        continue;
      }
      fn(context, total - static_cast<std::uint32_t>(state));
      count_progress();
      if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
      state = state_.load(std::memory_order_acquire);
    }
  }

  void wait_for_claimed() {
    if (spin_until([this] { return pending_.load(std::memory_order_acquire) == 0; })) return;
    for (std::int32_t left; (left = pending_.load(std::memory_order_acquire)) != 0;) {
      pending_.wait(left, std::memory_order_acquire);
    }
  }

  void worker(int index) {
    tls_index = index;
    tls_in_job = true;
    const auto has_work = [this, index] {
      return static_cast<std::uint32_t>(state_.load(std::memory_order_seq_cst)) != 0 &&
             index < threads_;
    };
    for (;;) {
      if (spin_until(has_work)) {
        claim_chunks();
        continue;
      }
      const std::uint32_t seen = wake_.load(std::memory_order_acquire);
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      if (!has_work()) wake_.wait(seen, std::memory_order_acquire);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  alignas(64) std::uint64_t nobody_watches_ = 0;
  alignas(64) std::atomic<std::uint64_t*> progress_{&nobody_watches_};
  std::atomic<int> threads_{1};
  std::atomic<int> running_{0};
  alignas(64) std::atomic<std::uint64_t> state_{0};
  alignas(64) std::atomic<std::int32_t> pending_{0};
  alignas(64) std::atomic<ChunkFunction> fn_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<std::int64_t> total_{0};
  alignas(64) std::atomic<std::uint32_t> wake_{0};
  std::atomic<int> sleepers_{0};
};

struct Buffer {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};
Buffer scratch_buffers[static_cast<int>(Scratch::kCount)];

// Never destroyed: detached workers may still look at it while the process exits.
Pool& pool() {
  static Pool* const instance = [] {
    auto* const created = new Pool;
    pthread_atfork([] { pool().lock.lock(); }, [] { pool().lock.unlock(); },
                   [] {
                     pool().after_fork_in_child();
                     pool().lock.unlock();
                   });
    return created;
  }();
  return *instance;
}

}  // namespace

void parallel_chunks(std::int64_t chunks, ChunkFunction fn, void* context) {
  pool().run(chunks, fn, context);
}

int num_threads() {
  return pool().threads();
}

void set_num_threads(int threads) {
  const KernelLock held;
  pool().set_threads(threads);
}

void count_progress_at(std::uint64_t* word) {
  const KernelLock held;
  pool().count_progress_at(word);
}

int thread_index() {
  return tls_index;
}
int thread_slots() {
  return pool().slots();
}

KernelLock::KernelLock() {
  pool().lock.lock();
}
KernelLock::~KernelLock() {
  pool().lock.unlock();
}

void* scratch_bytes(Scratch slot, std::size_t bytes) {
  Buffer& buffer = scratch_buffers[static_cast<int>(slot)];
  if (buffer.bytes < bytes) {
    ::operator delete(buffer.data, std::align_val_t{64});
    buffer = {};
    buffer.data = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{64}));
    buffer.bytes = bytes;
  }
  return buffer.data;
}

}  // namespace ts
