// SPDX-License-Identifier: MIT
// What a launch did. Bytes are those that instructions name, not those that caches and lines move.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace gpusim {

struct MmaCount {
  std::uint64_t instructions = 0;
  std::uint64_t flops = 0;
};

// Bytes between registers or copies on one side, and a memory on the other.
struct Counters {
  std::uint64_t instructions = 0;  // of PTX, by warps

  // Global memory. Parameters, constants and local memory are none.
  std::uint64_t global_loaded = 0;
  std::uint64_t global_stored = 0;
  std::uint64_t global_atomic = 0;      // bytes that atom and red update
  std::uint64_t global_copied_in = 0;   // by cp.async, bulk and tensor copies: a multicast is once
  std::uint64_t global_copied_out = 0;  // and reduced

  // Shared memory of the own CTA; copies write and read it wherever it is.
  std::uint64_t shared_loaded = 0;
  std::uint64_t shared_stored = 0;
  std::uint64_t shared_atomic = 0;
  std::uint64_t shared_copied_in = 0;  // a multicast: in every CTA
  std::uint64_t shared_copied_out = 0;
  std::uint64_t shared_mma = 0;  // operands of tensor cores

  // Shared memory of another CTA of the cluster.
  std::uint64_t distributed_loaded = 0;
  std::uint64_t distributed_stored = 0;
  std::uint64_t distributed_atomic = 0;
  std::uint64_t distributed_copied = 0;  // from CTA to CTA

  // Tensor memory.
  std::uint64_t tensor_loaded = 0;
  std::uint64_t tensor_stored = 0;
  std::uint64_t tensor_copied_in = 0;    // tcgen05.cp
  std::uint64_t tensor_mma_read = 0;     // operands A, and D where it is accumulated
  std::uint64_t tensor_mma_written = 0;  // D

  std::uint64_t tma_requests = 0;       // bulk and tensor copies and reductions
  std::map<std::string, MmaCount> mma;  // by kind, such as tcgen05.f16

  void multiplied(const std::string& kind, std::uint64_t instructions_of, std::uint64_t flops) {
    MmaCount& count = mma[kind];
    count.instructions += instructions_of;
    count.flops += flops;
  }
};

}  // namespace gpusim
