// SPDX-License-Identifier: MIT
//
// A small persistent thread pool for kernels of a few microseconds.
//
// One job at a time, split into chunks that threads claim one by one. The caller takes part, and at
// the end it waits only for chunks that a worker has *claimed*: a worker that the operating system
// does not run costs nothing, so a busy machine slows a job down in proportion and no further (a
// barrier over all threads would wait a scheduler slice, milliseconds, in every kernel).
//
// An idle worker spins for a short time, so that back-to-back kernels find it awake, then sleeps.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ts {

// Runs fn(context, chunk) for every chunk in [0, chunks); returns when all are done. Must be called
// with the KernelLock held; a call from inside a chunk runs inline.
using ChunkFunction = void (*)(void* context, std::int64_t chunk);
void parallel_chunks(std::int64_t chunks, ChunkFunction fn, void* context);

// Threads that take part in a job, the caller among them: one, until somebody who knows what this
// process may use (ts_kernels/threads.py) says more.
inline constexpr int kMaxThreads = 1024;
int num_threads();
void set_num_threads(int threads);  // std::invalid_argument outside 1..kMaxThreads

// Counts the chunks that calling threads have done, for somebody who watches from outside: adds to
// `word`, which must stay, from now on.
void count_progress_at(std::uint64_t* word);

// Serialises kernels from several Python threads: they share the pool and the scratch memory.
class KernelLock {
 public:
  KernelLock();
  ~KernelLock();
  KernelLock(const KernelLock&) = delete;
  KernelLock& operator=(const KernelLock&) = delete;
};

// 64-byte aligned scratch, valid until the caller's KernelLock ends or the same slot is asked for
// again. Slots let one kernel hold several buffers. The memory is kept for the next call.
enum class Scratch { kRows, kPairs, kUnits, kPartials, kPerThread, kCount };
void* scratch_bytes(Scratch slot, std::size_t bytes);

// Calls body(chunk) for every chunk; the body is any callable.
template <class Body>
void parallel_for(std::int64_t chunks, const Body& body) {
  parallel_chunks(
      chunks,
      [](void* context, std::int64_t chunk) { (*static_cast<const Body*>(context))(chunk); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// For per-thread scratch: the calling thread's index within the running job (0 is the caller), and
// a bound on it, which stays above threads that set_num_threads() has retired.
int thread_index();
int thread_slots();

}  // namespace ts
