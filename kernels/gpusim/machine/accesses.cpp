// SPDX-License-Identifier: MIT
// ld, st, atom, red (PTX ISA 9.7.9 "ld", "st", 9.7.13 "atom", "red") in every state space.
//
// Operands: the registers of the vector, then the address. Modifiers say where to look.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "cluster.h"

namespace gpusim {
namespace {

// Modifiers of an access.
constexpr std::int64_t kShared = 1;         // else global, or generic
constexpr std::int64_t kNarrowAddress = 2;  // the address is a 32-bit register
constexpr int kCountShift = 8;              // elements of the vector

std::uint64_t address(Step& step, int operand, int lane) {
  const std::uint64_t base = (step.op.modifiers & kNarrowAddress) != 0
                                 ? step.reg<std::uint32_t>(operand)[lane]
                                 : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

bool in_shared(const Step& step, std::uint64_t address) {
  return (step.op.modifiers & kShared) != 0 || (address & kSharedWindow) != 0;
}

// The memory that a lane reads.
const std::byte* readable(Step& step, std::uint64_t at, std::uint32_t bytes) {
  if (in_shared(step, at)) {
    const Cluster::Place place = cluster_of(step).place(at);
    const std::byte* memory = place.cta->shared.at(place.offset, bytes, bytes);
    place.cta->shared.demand_written(place.offset, bytes);
    return memory;
  }
  step.warp.machine().counters.global_bytes_loaded += bytes;
  return step.warp.machine().memory.at(at, bytes, bytes);
}

std::byte* writable(Step& step, std::uint64_t at, std::uint32_t bytes) {
  if (in_shared(step, at)) {
    const Cluster::Place place = cluster_of(step).place(at);
    std::byte* memory = place.cta->shared.at(place.offset, bytes, bytes);
    place.cta->shared.wrote(place.offset, bytes);
    return memory;
  }
  step.warp.machine().counters.global_bytes_stored += bytes;
  return step.warp.machine().memory.at(at, bytes, bytes);
}

// `T` in memory, `R` in a register that may be wider.
template <class T, class R>
Flow load(Step& step) {
  const int count = static_cast<int>(step.op.modifiers >> kCountShift);
  const auto bytes = static_cast<std::uint32_t>(static_cast<std::size_t>(count) * sizeof(T));
  step.each_lane([&](int lane) {
    const std::byte* const memory = readable(step, address(step, count, lane), bytes);
    for (int i = 0; i < count; ++i) {
      if (step.sink(i)) continue;
      T value;
      std::memcpy(&value, memory + (static_cast<std::size_t>(i) * sizeof(T)), sizeof(T));
      step.reg<R>(i)[lane] = static_cast<R>(value);
    }
  });
  return Flow::kNext;
}

template <class T, class R>
Flow store(Step& step) {
  const int count = static_cast<int>(step.op.modifiers >> kCountShift);
  const auto bytes = static_cast<std::uint32_t>(static_cast<std::size_t>(count) * sizeof(T));
  step.each_lane([&](int lane) {
    std::byte* const memory = writable(step, address(step, count, lane), bytes);
    for (int i = 0; i < count; ++i) {
      const T value = static_cast<T>(step.reg<R>(i)[lane]);
      std::memcpy(memory + (static_cast<std::size_t>(i) * sizeof(T)), &value, sizeof(T));
    }
  });
  return Flow::kNext;
}

// atom: result, address, value (and the value to swap in for cas). The result may be the sink.
template <class T, class F>
Flow atomic(Step& step) {
  const F f;
  step.each_lane([&](int lane) {
    const std::uint64_t at = address(step, 1, lane);
    (void)readable(step, at, sizeof(T));
    std::byte* const memory = writable(step, at, sizeof(T));
    T before;
    std::memcpy(&before, memory, sizeof(T));
    const T after = f(step, before, lane);
    std::memcpy(memory, &after, sizeof(T));
    if (!step.sink(0)) step.reg<T>(0)[lane] = before;
  });
  cluster_of(step).happened();
  return Flow::kNext;
}

struct AtomAdd {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return static_cast<T>(before + step.reg<T>(2)[lane]);
  }
};
struct AtomMin {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return std::min(before, step.reg<T>(2)[lane]);
  }
};
struct AtomMax {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return std::max(before, step.reg<T>(2)[lane]);
  }
};
struct AtomAnd {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return before & step.reg<T>(2)[lane];
  }
};
struct AtomOr {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return before | step.reg<T>(2)[lane];
  }
};
struct AtomXor {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return before ^ step.reg<T>(2)[lane];
  }
};
struct AtomExch {
  template <class T>
  T operator()(Step& step, T /*before*/, int lane) const {
    return step.reg<T>(2)[lane];
  }
};
struct AtomCas {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return before == step.reg<T>(2)[lane] ? step.reg<T>(3)[lane] : before;
  }
};
struct AtomInc {
  template <class T>
  T operator()(Step& step, T before, int lane) const {
    return before >= step.reg<T>(2)[lane] ? 0 : before + 1;
  }
};

template <class T>
void add_access(Registry& registry, const std::string& type) {
  if constexpr (sizeof(T) <= 2) {
    registry["ld." + type + ".16"] =
        load<T, std::conditional_t<std::is_signed_v<T>, std::int16_t, std::uint16_t>>;
    registry["st." + type + ".16"] = store<T, std::uint16_t>;
  }
  if constexpr (sizeof(T) <= 4) {
    registry["ld." + type + ".32"] =
        load<T, std::conditional_t<std::is_signed_v<T>, std::int32_t, std::uint32_t>>;
    registry["st." + type + ".32"] = store<T, std::uint32_t>;
  }
  registry["ld." + type + ".64"] =
      load<T, std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;
  registry["st." + type + ".64"] = store<T, std::uint64_t>;
}

template <class T>
void add_bitwise_atomics(Registry& registry, const std::string& type) {
  registry["atom.and." + type] = atomic<T, AtomAnd>;
  registry["atom.or." + type] = atomic<T, AtomOr>;
  registry["atom.xor." + type] = atomic<T, AtomXor>;
  registry["atom.exch." + type] = atomic<T, AtomExch>;
  registry["atom.cas." + type] = atomic<T, AtomCas>;
}

template <class T>
void add_arithmetic_atomics(Registry& registry, const std::string& type) {
  registry["atom.add." + type] = atomic<T, AtomAdd>;
  registry["atom.min." + type] = atomic<T, AtomMin>;
  registry["atom.max." + type] = atomic<T, AtomMax>;
}

}  // namespace

void register_accesses(Registry& registry) {
  add_access<std::uint8_t>(registry, "u8");
  add_access<std::int8_t>(registry, "s8");
  add_access<std::uint16_t>(registry, "u16");
  add_access<std::int16_t>(registry, "s16");
  add_access<std::uint32_t>(registry, "u32");
  add_access<std::int32_t>(registry, "s32");
  add_access<std::uint64_t>(registry, "u64");
  add_bitwise_atomics<std::uint32_t>(registry, "b32");
  add_bitwise_atomics<std::uint64_t>(registry, "b64");
  add_arithmetic_atomics<std::uint32_t>(registry, "u32");
  add_arithmetic_atomics<std::int32_t>(registry, "s32");
  add_arithmetic_atomics<std::uint64_t>(registry, "u64");
  add_arithmetic_atomics<std::int64_t>(registry, "s64");
  registry["atom.add.f32"] = atomic<float, AtomAdd>;
  registry["atom.add.f64"] = atomic<double, AtomAdd>;
  registry["atom.inc.u32"] = atomic<std::uint32_t, AtomInc>;
}

}  // namespace gpusim
