// SPDX-License-Identifier: MIT
// ld, st, atom, red (PTX ISA 9.7.9.8, 9.7.9.11, 9.7.13.5, 9.7.13.6) in every state space, and the
// fences that order them.
//
// Operands: the registers of the vector, then the address. Modifiers say where to look.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <type_traits>

#include "cluster.h"
#include "floating.h"
#include "formats.h"
#include "widths.h"

namespace gpusim {
namespace {

// Modifiers of an access. Without a space, the address is generic.
constexpr std::int64_t kShared = 1;
constexpr std::int64_t kNarrowAddress = 2;  // the address is a 32-bit register
constexpr std::int64_t kGlobal = 4;         // or const, local or param: not shared
constexpr std::int64_t kPrivate = 8;        // with kGlobal: const, local or param
constexpr int kCountShift = 8;              // elements of the vector, 4 bits
constexpr int kMostElements = 16;
constexpr int kOrderShift = 16;  // 3 bits
constexpr int kScopeShift = 20;  // 2 bits

int count_of(const Step& step) {
  return static_cast<int>(step.op.modifiers >> kCountShift & 15);
}

Strength strength_of(const Step& step) {
  return {.order = static_cast<Order>(step.op.modifiers >> kOrderShift & 7),
          .scope = static_cast<Scope>(step.op.modifiers >> kScopeShift & 3)};
}

// While an instruction executes, its accesses are as strong as it says.
class Strongly {
 public:
  explicit Strongly(Strength strength) { acting->strong = strength.strong(); }
  ~Strongly() { acting->strong = false; }
  Strongly(const Strongly&) = delete;
  Strongly& operator=(const Strongly&) = delete;
};

std::uint64_t address(Step& step, int operand, int lane) {
  const std::uint64_t base = (step.op.modifiers & kNarrowAddress) != 0
                                 ? step.reg<std::uint32_t>(operand)[lane]
                                 : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

bool in_shared(const Step& step, std::uint64_t address) {
  if ((step.op.modifiers & kGlobal) != 0) return false;
  return (step.op.modifiers & kShared) != 0 || (address & kSharedWindow) != 0;
}

// Is it in the local memory of the lane's thread?
bool in_local(Step& step, std::uint64_t at, std::uint32_t bytes, int lane) {
  const Program& program = step.warp.machine().program;
  if (program.local_bytes == 0) return false;
  const std::uint64_t begin = step.warp.place<std::uint64_t>(program.local_base)[lane];
  const std::uint64_t offset = at - begin;
  return at >= begin && offset < program.local_bytes && bytes <= program.local_bytes - offset;
}

// Adds the bytes to `counter` if they are in global memory.
std::byte* outside_shared(Step& step, std::uint64_t at, std::uint32_t bytes, int lane,
                          std::uint64_t Counters::* counter) {
  if (in_local(step, at, bytes, lane) && at % bytes == 0) {
    return reinterpret_cast<std::byte*>(at);  // NOLINT(performance-no-int-to-ptr)
  }
  if ((step.op.modifiers & kPrivate) == 0) step.warp.machine().counters.*counter += bytes;
  return step.warp.machine().memory.at(at, bytes, bytes);
}

void count_shared(Step& step, const Cluster::Place& place, std::uint32_t bytes,
                  std::uint64_t Counters::* own, std::uint64_t Counters::* distributed) {
  const bool is_own = place.cta == &step.warp.cta();
  step.warp.machine().counters.*(is_own ? own : distributed) += bytes;
}

struct Access {
  std::uint64_t at;
  std::uint32_t bytes;
  bool writes;
  bool same = false;  // it writes what is there already
};

// Is the access in order with those of the other lanes of the warp?
void compare_lanes(Step& step, const Access& access, int lane) {
  const bool shared = in_shared(step, access.at);
  std::uint64_t at = access.at;
  if (shared) {
    const Cluster::Place place = cluster_of(step).place(at);
    at = kSharedWindow | std::uint64_t{place.cta->rank()} << kRankShift | place.offset;
  }
  Warp& warp = step.warp;
  const LaneOrder::Earlier earlier = warp.lanes.access({.address = at,
                                                        .bytes = access.bytes,
                                                        .pc = warp.agent.pc,
                                                        .lane = static_cast<std::uint8_t>(lane),
                                                        .writes = access.writes,
                                                        .strong = strength_of(step).strong(),
                                                        .same = access.same});
  if (earlier.lane != LaneOrder::kNobody) report_lanes(warp, lane, access.writes, earlier);
}

// The memory that a lane reads.
const std::byte* readable(Step& step, std::uint64_t at, std::uint32_t bytes, int lane) {
  if (in_shared(step, at)) {
    const Cluster::Place place = cluster_of(step).place(at);
    count_shared(step, place, bytes, &Counters::shared_loaded, &Counters::distributed_loaded);
    const std::byte* memory = place.cta->shared.at(place.offset, bytes, bytes);
    place.cta->shared.demand_written(place.offset, bytes);
    compare_lanes(step, {.at = at, .bytes = bytes, .writes = false}, lane);
    return memory;
  }
  const std::byte* memory = outside_shared(step, at, bytes, lane, &Counters::global_loaded);
  if ((step.op.modifiers & kPrivate) == 0 && !in_local(step, at, bytes, lane)) {
    step.warp.machine().memory.read(at, bytes, strength_of(step), &step.warp.order);
    compare_lanes(step, {.at = at, .bytes = bytes, .writes = false}, lane);
  }
  return memory;
}

// The memory to which a lane writes the bytes of `what`.
std::byte* writable(Step& step, std::uint64_t at, const std::byte* what, std::uint32_t bytes,
                    int lane) {
  if (in_shared(step, at)) {
    const Cluster::Place place = cluster_of(step).place(at);
    count_shared(step, place, bytes, &Counters::shared_stored, &Counters::distributed_stored);
    std::byte* memory = place.cta->shared.at(place.offset, bytes, bytes);
    place.cta->shared.wrote(place.offset, bytes);
    const bool same = std::memcmp(memory, what, bytes) == 0;
    compare_lanes(step, {.at = at, .bytes = bytes, .writes = true, .same = same}, lane);
    return memory;
  }
  std::byte* memory = outside_shared(step, at, bytes, lane, &Counters::global_stored);
  if (!in_local(step, at, bytes, lane)) {
    step.warp.machine().memory.write(at, what, bytes, strength_of(step), &step.warp.order);
    const bool same = std::memcmp(memory, what, bytes) == 0;
    compare_lanes(step, {.at = at, .bytes = bytes, .writes = true, .same = same}, lane);
  }
  return memory;
}

// That of an atomic operation: in no order with others on the same memory, and yet no race.
std::byte* updatable(Step& step, std::uint64_t at, std::uint32_t bytes, int lane) {
  if (in_shared(step, at)) {
    const Cluster::Place place = cluster_of(step).place(at);
    count_shared(step, place, bytes, &Counters::shared_atomic, &Counters::distributed_atomic);
    std::byte* memory = place.cta->shared.at(place.offset, bytes, bytes);
    place.cta->shared.demand_written(place.offset, bytes);
    place.cta->shared.wrote(place.offset, bytes);
    compare_lanes(step, {.at = at, .bytes = bytes, .writes = true}, lane);
    return memory;
  }
  std::byte* memory = outside_shared(step, at, bytes, lane, &Counters::global_atomic);
  if (!in_local(step, at, bytes, lane)) {
    step.warp.machine().memory.update(at, bytes, strength_of(step), &step.warp.order);
    compare_lanes(step, {.at = at, .bytes = bytes, .writes = true}, lane);
  }
  return memory;
}

// PTX ISA 9.7.9.19: p, a generic address.
enum class Space : std::uint8_t { kSharedCta, kSharedCluster, kLocal, kGlobalMemory };
template <Space kSpace>
Flow is_in_space(Step& step) {
  Mask& p = step.predicate(0);
  step.each_lane([&](int lane) {
    const std::uint64_t at = step.reg<std::uint64_t>(1)[lane];
    const bool shared = (at & kSharedWindow) != 0;
    const bool local = !shared && in_local(step, at, 1, lane);
    bool inside = false;
    if constexpr (kSpace == Space::kSharedCta) {
      inside = shared && (at & ~kSharedWindow) >> kRankShift == step.warp.cta().rank();
    } else if constexpr (kSpace == Space::kSharedCluster) {
      inside = shared;
    } else {
      inside = kSpace == Space::kLocal ? local : !shared && !local;
    }
    p = inside ? p | Mask{1} << lane : p & ~(Mask{1} << lane);
  });
  return Flow::kNext;
}

// Where what strong accesses tell each other is kept.
struct Mailbox {
  Mailboxes& boxes;
  std::uint64_t at;
};

Mailbox mailbox(Step& step, std::uint64_t at) {
  if (!in_shared(step, at)) return {step.warp.machine().memory.mailboxes, at};
  const Cluster::Place place = cluster_of(step).place(at);
  return {place.cta->shared.mailboxes, place.offset};
}

// What strong reads of the vector's elements learn.
void learn(Step& step, std::uint64_t at, int count, std::size_t element) {
  step.warp.lanes.wait();
  acting->recent.add(acting->pc);
  for (int i = 0; i < count; ++i) {
    const Mailbox from = mailbox(step, at + (static_cast<std::size_t>(i) * element));
    step.warp.order.read(from.boxes.at(from.at), strength_of(step));
  }
}

// What the lanes of an instruction read, in case that they do so again and again.
class Observed {
 public:
  void add(std::uint64_t at, bool global, const std::byte* memory, std::uint32_t bytes) {
    std::uint64_t value = 0;
    std::memcpy(&value, memory, std::min<std::uint32_t>(bytes, 8));
    std::uint64_t last = value;
    if (bytes > 8) std::memcpy(&last, memory + bytes - 8, 8);
    if (read_.address == 0) {
      read_.bytes = std::min<std::uint32_t>(bytes, 8);
      read_.address = at;
      read_.value = value;
      read_.global = global;
      read_.one_place = bytes <= 8;
    }
    read_.one_place = read_.one_place && at == read_.address;
    constexpr std::uint64_t kFactor = 0x9e3779b97f4a7c15;
    read_.digest = ((read_.digest ^ at ^ (value + last * 3)) * kFactor) + (read_.digest >> 29);
  }
  void tell(Step& step) {
    read_.pc = step.warp.agent.pc;
    step.fragment.polls.reads(read_, !strength_of(step).strong());
  }

 private:
  Polls::Read read_;
};

// `T` in memory, `R` in a register that may be wider.
template <class T, class R>
Flow load(Step& step) {
  const int count = count_of(step);
  // Weak reads of shared memory are too many to look at, and wait for nobody.
  const Strength strength = strength_of(step);
  const Strongly strongly(strength);
  const bool may_wait = strength.strong() || (step.op.modifiers & kShared) == 0;
  const bool observed = may_wait && (step.op.modifiers & kPrivate) == 0;
  Observed what;
  const auto bytes = static_cast<std::uint32_t>(static_cast<std::size_t>(count) * sizeof(T));
  step.each_lane([&](int lane) {
    const std::uint64_t at = address(step, count, lane);
    const std::byte* const memory = readable(step, at, bytes, lane);
    if (observed) what.add(at, !in_shared(step, at), memory, bytes);
    if (strength.strong()) learn(step, at, count, sizeof(T));
    for (int i = 0; i < count; ++i) {
      T value;
      std::memcpy(&value, memory + (static_cast<std::size_t>(i) * sizeof(T)), sizeof(T));
      step.reg<R>(i)[lane] = static_cast<R>(value);  // NOLINT(bugprone-signed-char-misuse): s8
    }
  });
  if (observed) what.tell(step);
  return Flow::kNext;
}

template <class T, class R>
Flow store(Step& step) {
  const int count = count_of(step);
  step.fragment.polls.progresses();
  const Strength strength = strength_of(step);
  const Strongly strongly(strength);
  std::optional<Message> message;
  if (strength.strong()) message = step.warp.order.message(strength);
  const auto bytes = static_cast<std::uint32_t>(static_cast<std::size_t>(count) * sizeof(T));
  step.each_lane([&](int lane) {
    const std::uint64_t at = address(step, count, lane);
    T values[kMostElements];
    for (int i = 0; i < count; ++i) {
      values[i] = static_cast<T>(step.reg<R>(i)[lane]);
      if (!message) continue;
      const Mailbox to = mailbox(step, at + (static_cast<std::size_t>(i) * sizeof(T)));
      to.boxes.write(to.at, *message);
    }
    const auto* const what = reinterpret_cast<const std::byte*>(values);
    std::memcpy(writable(step, at, what, bytes, lane), what, bytes);
  });
  if (strength.strong()) step.warp.lanes.announce();
  if (releases(strength.order)) acting->tick();
  return Flow::kNext;
}

// atom and red: the results (sinks for red), the address, the values, and for cas those to swap in;
// as many of each as the vector has elements. Each element is an atomic operation of its own.
template <class T, class F>
Flow atomic(Step& step) {
  const F f;
  const int count = count_of(step);
  const auto bytes = static_cast<std::uint32_t>(static_cast<std::size_t>(count) * sizeof(T));
  const Strength strength = strength_of(step);
  const Strongly strongly(strength);
  Observed what;
  bool changed = false;
  step.each_lane([&](int lane) {
    const std::uint64_t at = address(step, count, lane);
    what.add(at, !in_shared(step, at), updatable(step, at, bytes, lane), bytes);
    learn(step, at, count, sizeof(T));
  });
  const Message message = step.warp.order.message(strength);
  step.each_lane([&](int lane) {
    const std::uint64_t at = address(step, count, lane);
    std::byte* const memory =
        in_shared(step, at)
            ? cluster_of(step).memory(at)
            : reinterpret_cast<std::byte*>(at);  // NOLINT(performance-no-int-to-ptr)
    for (int i = 0; i < count; ++i) {
      std::byte* const element = memory + (static_cast<std::size_t>(i) * sizeof(T));
      T before;
      std::memcpy(&before, element, sizeof(T));
      const T value = step.reg<T>(count + 1 + i)[lane];
      T after;
      bool writes = true;
      if constexpr (F::kSwaps) {
        writes = before == value;
        after = writes ? step.reg<T>(2 * count + 1 + i)[lane] : before;
      } else {
        after = f(before, value, in_shared(step, at));
      }
      const auto bits = std::bit_cast<std::array<std::byte, sizeof(T)>>(after);
      changed = changed || !std::ranges::equal(bits, std::span(element, sizeof(T)));
      std::ranges::copy(bits, element);
      if (!step.sink(i)) step.reg<T>(i)[lane] = before;
      if (!writes) continue;
      const Mailbox to = mailbox(step, at + (static_cast<std::size_t>(i) * sizeof(T)));
      to.boxes.update(to.at, message);
    }
  });
  if (strength.strong()) step.warp.lanes.announce();
  if (releases(strength.order)) acting->tick();
  if (changed) {
    step.fragment.polls.progresses();
    cluster_of(step).happened();
  } else {
    what.tell(step);
  }
  return Flow::kNext;
}

template <class F>
struct Plain {  // the same in every state space
  static constexpr bool kSwaps = false;
  template <class T>
  T operator()(T before, T value, bool /*shared*/) const {
    return static_cast<T>(F()(before, value));
  }
};
struct CompareAndSwap {
  static constexpr bool kSwaps = true;
};
struct Least {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct Greatest {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};
struct Exchange {
  template <class T>
  T operator()(T /*before*/, T value) const {
    return value;
  }
};
struct Increment {
  std::uint32_t operator()(std::uint32_t before, std::uint32_t value) const {
    return before >= value ? 0 : before + 1;
  }
};
struct Decrement {
  std::uint32_t operator()(std::uint32_t before, std::uint32_t value) const {
    return before == 0 || before > value ? value : before - 1;
  }
};

// PTX ISA 9.7.13.5: an f32 sum in global memory flushes subnormal numbers, one in shared does not.
struct AddFloat {
  static constexpr bool kSwaps = false;
  float operator()(float before, float value, bool shared) const {
    return shared ? before + value : flushed(flushed(before) + flushed(value));
  }
  static float flushed(float value) {
    return std::fabs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value)
                                                                : value;
  }
};

// Of f16 and bf16, whose subnormal numbers stay (.noftz); Bits: of one, or of a pair.
template <class F, const Format& kFormat, class Bits>
struct OnHalves {
  Bits operator()(Bits before, Bits value) const {
    Bits result = 0;
    for (std::size_t shift = 0; shift < 8 * sizeof(Bits); shift += 16) {
      const auto read = [&](Bits bits) { return double{widen(kFormat, bits >> shift & 0xffff)}; };
      const double sum = F()(read(before), read(value));
      result |= static_cast<Bits>(narrow(kFormat, sum, Rounding::kNearestEven, false) << shift);
    }
    return result;
  }
};

template <const Format& kFormat>
void add_half_atomics(Registry& registry, const std::string& type) {
  const auto add = [&]<class F>(const std::string& name) {
    registry[name + type] = atomic<std::uint16_t, Plain<OnHalves<F, kFormat, std::uint16_t>>>;
    registry[name + type + "x2"] =
        atomic<std::uint32_t, Plain<OnHalves<F, kFormat, std::uint32_t>>>;
  };
  add.template operator()<Plus<double>>("atom.add.");
  add.template operator()<FloatMin<double>>("atom.min.");
  add.template operator()<FloatMax<double>>("atom.max.");
}

// Fences order what strong accesses tell.
Flow fence(Step& step) {
  const Strength strength = strength_of(step);
  step.warp.order.fence(strength);
  if (releases(strength.order)) step.warp.released = acting->knows;
  return Flow::kNext;
}

template <class T>
void add_access(Registry& registry, const std::string& type) {
  if constexpr (sizeof(T) == 1) {
    registry["ld." + type + ".8"] = load<T, T>;
    registry["st." + type + ".8"] = store<T, T>;
  }
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
  registry["atom.and." + type] = atomic<T, Plain<std::bit_and<T>>>;
  registry["atom.or." + type] = atomic<T, Plain<std::bit_or<T>>>;
  registry["atom.xor." + type] = atomic<T, Plain<std::bit_xor<T>>>;
  registry["atom.exch." + type] = atomic<T, Plain<Exchange>>;
  registry["atom.cas." + type] = atomic<T, CompareAndSwap>;
}

template <class T>
void add_arithmetic_atomics(Registry& registry, const std::string& type) {
  registry["atom.add." + type] = atomic<T, Plain<std::plus<std::make_unsigned_t<T>>>>;
  registry["atom.min." + type] = atomic<T, Plain<Least>>;
  registry["atom.max." + type] = atomic<T, Plain<Greatest>>;
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
  registry["ld.u128.128"] = load<UInt128, UInt128>;
  registry["st.u128.128"] = store<UInt128, UInt128>;
  registry["atom.exch.b128"] = atomic<UInt128, Plain<Exchange>>;
  registry["atom.cas.b128"] = atomic<UInt128, CompareAndSwap>;
  registry["isspacep.shared::cta"] = is_in_space<Space::kSharedCta>;
  registry["isspacep.shared::cluster"] = is_in_space<Space::kSharedCluster>;
  registry["isspacep.local"] = is_in_space<Space::kLocal>;
  registry["isspacep.global"] = is_in_space<Space::kGlobalMemory>;
  registry["fence"] = fence;
  registry["atom.cas.b16"] = atomic<std::uint16_t, CompareAndSwap>;
  registry["atom.inc.u32"] = atomic<std::uint32_t, Plain<Increment>>;
  registry["atom.dec.u32"] = atomic<std::uint32_t, Plain<Decrement>>;
  registry["atom.add.f32"] = atomic<float, AddFloat>;
  registry["atom.add.f64"] = atomic<double, Plain<std::plus<double>>>;
  add_half_atomics<kF16>(registry, "f16");
  add_half_atomics<kBf16>(registry, "bf16");
}

}  // namespace gpusim
