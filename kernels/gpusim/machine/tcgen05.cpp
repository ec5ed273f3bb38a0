// SPDX-License-Identifier: MIT
// The tensor cores of sm_100a and their memory (PTX ISA 9.7.16 "tcgen05").
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "reductions.h"
#include "tensor_core.h"

namespace gpusim {
namespace {

// Modifiers that several have.
constexpr std::int64_t kPair = 1;           // .cta_group::2
constexpr std::int64_t kNarrowAddress = 2;  // the shared address is a 32-bit register

// A CTA's operations complete in the order in which they were issued.
std::uint32_t queue_of(const Cta& cta) {
  return cta.rank();
}

std::uint64_t shared_address(Step& step, int operand, int lane) {
  const std::uint64_t base = (step.op.modifiers & kNarrowAddress) != 0
                                 ? step.reg<std::uint32_t>(operand)[lane]
                                 : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

// Operands: shared address, columns.
Flow alloc(Step& step) {
  Cta& cta = step.warp.cta();
  const auto columns = static_cast<int>(step.value<std::uint32_t>(1));
  if (columns < 32 || columns > kTmemColumns ||
      !std::has_single_bit(static_cast<unsigned>(columns))) {
    throw Fault("tensor-memory",
                std::to_string(columns) +
                    " columns of tensor memory are asked for; it must be 32, 64, 128, 256 or 512");
  }
  if (cta.tmem.relinquished) {
    throw Fault("tensor-memory", "a CTA that has relinquished its permit allocates tensor memory");
  }
  const int first = cta.tmem.allocate(columns);
  if (first < 0) {
    step.fragment.waits_for = [columns, allocated = cta.tmem.allocated()] {
      return std::to_string(columns) + " columns of tensor memory, of whose " +
             std::to_string(kTmemColumns) + " columns " + std::to_string(allocated) +
             " are allocated";
    };
    return Flow::kWait;
  }
  acquire(cta.tmem.freed);
  const Cluster::Place to = cluster_of(step).place(shared_address(step, 0, step.lane()));
  const auto address = static_cast<std::uint32_t>(first);
  std::memcpy(to.cta->shared.at(to.offset, 4, 4), &address, 4);
  to.cta->shared.wrote(to.offset, 4);
  return Flow::kNext;
}

// Operands: address, columns.
Flow dealloc(Step& step) {
  const TensorAddress at = tensor_address(step.value<std::uint32_t>(0));
  const auto columns = static_cast<int>(step.value<std::uint32_t>(1));
  TensorMemory& tmem = step.warp.cta().tmem;
  tmem.release(at.column, columns);
  // All that was done with the columns has to happen before, as if they were written.
  Agent agent = step.warp.agent;
  agent.proxy = Proxy::kAsync;  // no proxy fence concerns tensor memory
  acting = &agent;
  tmem.writes(0, kTmemLanes / kLanes, at.column, columns);
  acting = &step.warp.agent;
  release(tmem.freed);
  acting->tick();
  cluster_of(step).happened();
  return Flow::kNext;
}

Flow relinquish(Step& step) {
  step.warp.cta().tmem.relinquished = true;
  return Flow::kNext;
}

// ld and st: which word of tensor memory a register of a thread is (PTX ISA 9.7.16.8.1).
enum class Shape : std::uint8_t { k32x32b, k16x64b, k16x128b, k16x256b, k16x32bx2 };

// Modifiers of ld and st.
constexpr int kRegistersShift = 8;
constexpr int kShapeShift = 16;
constexpr std::int64_t kPacks = 1 << 19;  // a register has the low halves of two words side by side
constexpr int kReductionShift = 20;       // 3 bits: ld.red
constexpr int kNumberShift = 23;          // 2 bits: that of u32, s32, f32
constexpr std::int64_t kAbsolute = 1 << 25;
constexpr std::int64_t kKeepsNan = 1 << 26;
constexpr int kSplitShift = 32;  // .16x32bx2: columns from the first half to the second

struct TensorFragment {
  Shape shape;
  bool packs;
  int split;
};
TensorFragment tensor_fragment_of(const Op& op) {
  return {.shape = static_cast<Shape>(op.modifiers >> kShapeShift & 7),
          .packs = (op.modifiers & kPacks) != 0,
          .split = static_cast<int>(op.modifiers >> kSplitShift)};
}

TensorAddress unpacked_word_of(Shape shape, int thread, int i) {
  switch (shape) {
    case Shape::k32x32b:
      return {thread, i};
    case Shape::k16x64b:
      return {(thread % 2 * 8) + (thread / 4), (thread / 2 % 2) + (2 * i)};
    case Shape::k16x128b:
      return {(thread / 4) + (i % 2 * 8), (thread % 4) + (i / 2 * 4)};
    case Shape::k16x256b:
      return {(thread / 4) + (i / 2 % 2 * 8), (thread % 4 * 2) + (i % 2) + (i / 4 * 8)};
    case Shape::k16x32bx2:
      return {thread % 16, i};
  }
  return {0, 0};
}

// The first, where it packs two.
TensorAddress word_of(const TensorFragment& fragment, int thread, int i) {
  TensorAddress word = unpacked_word_of(fragment.shape, thread, i);
  if (fragment.packs) word.column *= 2;
  if (fragment.shape == Shape::k16x32bx2) word.column += thread / 16 * fragment.split;
  return word;
}

// The lanes that a warp may read and write: a quarter, or half of it.
int first_lane(Step& step, const TensorAddress& at, Shape shape) {
  const int own = kLanes * (step.warp.id() % 4);
  if (at.lane != own && (shape == Shape::k32x32b || at.lane != own + kLanes / 2)) {
    throw Fault("tensor-memory",
                "warp " + std::to_string(step.warp.id()) + " accesses tensor memory from lane " +
                    std::to_string(at.lane) + ", but its quarter begins at " + std::to_string(own));
  }
  return at.lane;
}

// ld and st go on by themselves until the warp waits for them: their agent acts.
void begin_access(Step& step, Agent& agent) {
  agent.knows.join(step.warp.agent.knows);
  agent.pc = step.warp.agent.pc;
  agent.tick();
  acting = &agent;
}

Flow wait_for_loads(Step& step) {
  Warp& warp = step.warp;
  acquire(warp.load_agent.knows);
  warp.tensor_loads.waited = warp.tensor_loads.issued;
  return Flow::kNext;
}

Flow wait_for_stores(Step& step) {
  acquire(step.warp.store_agent.knows);
  return Flow::kNext;
}

// Words that a tcgen05.ld reads, one by one: of one lane they need not stand side by side.
void demand_written(Step& step, const TensorFragment& fragment, int first, int column,
                    int registers) {
  const int count = fragment.packs ? 2 : 1;
  const TensorMemory& tmem = step.warp.cta().tmem;
  for (int i = 0; i < registers; ++i) {
    if (step.sink(i)) continue;
    for (int thread = 0; thread < kLanes; ++thread) {
      const TensorAddress word = word_of(fragment, thread, i);
      if (tmem.is_written(first + word.lane, column + word.column, count)) continue;
      Machine& machine = step.warp.machine();
      report_unwritten(machine.found, machine.program, first + word.lane, column + word.column,
                       count);
      return;
    }
  }
}

// Operands: registers, address.
template <bool kLoad>
Flow access(Step& step) {
  if (step.mask != kAllLanes) return Flow::kConverge;
  const auto registers = static_cast<int>(step.op.modifiers >> kRegistersShift & 0xff);
  const TensorFragment fragment = tensor_fragment_of(step.op);
  const Shape shape = fragment.shape;
  const TensorAddress at = tensor_address(step.value<std::uint32_t>(registers) +
                                          static_cast<std::uint32_t>(step.offset(registers)));
  TensorMemory& tmem = step.warp.cta().tmem;
  const int first = first_lane(step, at, shape);
  const bool by_column = shape == Shape::k32x32b || shape == Shape::k16x32bx2;
  const int columns = (by_column ? registers : 2 * registers) * (fragment.packs ? 2 : 1);
  const auto touch = [&](int from) {
    tmem.demand(from, columns);
    begin_access(step, kLoad ? step.warp.load_agent : step.warp.store_agent);
    if constexpr (kLoad) {
      tmem.reads(first / kLanes, 1, from, columns);
    } else {
      tmem.writes(first / kLanes, 1, from, columns);
    }
    acting = &step.warp.agent;
  };
  if constexpr (kLoad) ++step.warp.tensor_loads.issued;
  touch(at.column);
  if (shape == Shape::k16x32bx2) touch(at.column + fragment.split);
  if constexpr (kLoad) demand_written(step, fragment, first, at.column, registers);
  Counters& counters = step.warp.machine().counters;
  (kLoad ? counters.tensor_loaded : counters.tensor_stored) +=
      std::uint64_t{4} * kLanes *
      static_cast<std::uint64_t>(fragment.packs ? 2 * registers : registers);
  for (int i = 0; i < registers; ++i) {
    if (step.sink(i)) continue;
    std::uint32_t* const values = step.reg<std::uint32_t>(i);
    for (int thread = 0; thread < kLanes; ++thread) {
      const TensorAddress word = word_of(fragment, thread, i);
      std::uint32_t* const there = tmem.lane(first + word.lane) + at.column + word.column;
      if constexpr (kLoad) {
        values[thread] = fragment.packs ? (there[0] & 0xffff) | there[1] << 16 : there[0];
      } else {
        there[0] = fragment.packs ? values[thread] & 0xffff : values[thread];
        if (fragment.packs) there[1] = values[thread] >> 16;
        tmem.mark_written(first + word.lane, at.column + word.column, fragment.packs ? 2 : 1);
      }
    }
  }
  return Flow::kNext;
}

// The smaller or the larger; of floats that which is a number, or with `keeps_nan` the one that is
// not.
template <class T>
std::uint32_t reduce_words(Reduction reduction, std::uint32_t left, std::uint32_t right,
                           bool absolute, bool keeps_nan) {
  T a = std::bit_cast<T>(left);
  T b = std::bit_cast<T>(right);
  if constexpr (std::is_floating_point_v<T>) {
    if (absolute) {
      a = std::fabs(a);
      b = std::fabs(b);
    }
    constexpr std::uint32_t kNan = 0x7fffffff;
    if ((std::isnan(a) && std::isnan(b)) || (keeps_nan && (std::isnan(a) || std::isnan(b)))) {
      return kNan;
    }
    if (std::isnan(a) || std::isnan(b)) return std::bit_cast<std::uint32_t>(std::isnan(a) ? b : a);
    // -0 is less than +0.
    if (a == b)
      return std::bit_cast<std::uint32_t>(std::signbit(a) == (reduction == Reduction::kMin) ? a
                                                                                            : b);
  }
  return std::bit_cast<std::uint32_t>(reduction == Reduction::kMin ? std::min(a, b)
                                                                   : std::max(a, b));
}

// ld.red: also reduces each thread's registers. Operands: registers, address, the result.
Flow load_and_reduce(Step& step) {
  if (const Flow flow = access<true>(step); flow != Flow::kNext) return flow;
  const auto registers = static_cast<int>(step.op.modifiers >> kRegistersShift & 0xff);
  const auto reduction = static_cast<Reduction>(step.op.modifiers >> kReductionShift & 7);
  const auto number = step.op.modifiers >> kNumberShift & 3;
  const bool absolute = (step.op.modifiers & kAbsolute) != 0;
  const bool keeps_nan = (step.op.modifiers & kKeepsNan) != 0;
  for (int thread = 0; thread < kLanes; ++thread) {
    const auto word = [&](int i) { return step.reg<std::uint32_t>(i)[thread]; };
    std::uint32_t result = word(0);
    for (int i = 1; i < registers; ++i) {
      result = number == 0   ? reduce_words<std::uint32_t>(reduction, result, word(i), false, false)
               : number == 1 ? reduce_words<std::int32_t>(reduction, result, word(i), false, false)
                             : reduce_words<float>(reduction, result, word(i), absolute, keeps_nan);
    }
    step.reg<std::uint32_t>(registers + 1)[thread] = result;
  }
  return Flow::kNext;
}

// Modifiers of mma.
constexpr int kKindShift = 4;
constexpr std::int64_t kAInTensorMemory = 1 << 8;
constexpr std::int64_t kWeightStationary = 1 << 9;
constexpr int kDisableShift = 12;  // words of the mask of disabled lanes
constexpr int kBlockShift = 20;    // elements that share a scale factor, in sixteens
constexpr std::int64_t kCountedScales = 1 << 22;
constexpr std::int64_t kShiftsA = 1 << 10;
constexpr std::int64_t kZeroColumns = 1 << 11;  // a mask of B's columns is given
constexpr int kScaleDShift = 24;                // 4 bits

MmaForm form_of(const Step& step) {
  const std::int64_t modifiers = step.op.modifiers;
  return {.kind = static_cast<Kind>(modifiers >> kKindShift & 15),
          .pair = (modifiers & kPair) != 0,
          .weight_stationary = (modifiers & kWeightStationary) != 0,
          .sparse = false,
          .block = static_cast<int>(modifiers >> kBlockShift & 3) * 16,
          .counted = (modifiers & kCountedScales) != 0};
}

// That of the warp, or with .cta_group::2 both of its pair.
std::vector<Cta*> ctas_of(Step& step) {
  Cta& cta = step.warp.cta();
  Cluster& cluster = cta.cluster();
  if ((step.op.modifiers & kPair) == 0) return {&cta};
  const std::uint32_t even = cta.rank() & ~1U;
  if (even + 1 >= cluster.ctas.size()) {
    throw Fault("descriptor", "an operation of two CTAs runs in a cluster of " +
                                  std::to_string(cluster.ctas.size()));
  }
  return {cluster.ctas[even].get(), cluster.ctas[even + 1].get()};
}

// Null if the launch is not recorded, or there is no other.
CtaRecord* record_of_other(const Cta& cta, const std::vector<Cta*>& ctas) {
  Cta* const other = ctas.front() == &cta ? ctas.back() : ctas.front();
  return other == &cta ? nullptr : other->warps.front()->agent.record;
}

// Operands: D, A, the descriptor of B, the instruction's descriptor, the predicate enable-input-d,
// [the mask of disabled lanes], [the scale factors of A and of B], [the mask of B's columns].
Flow mma(Step& step) {
  step.each_lane([&](int lane) {
    Cta& cta = step.warp.cta();
    Cluster& cluster = cta.cluster();
    Machine& machine = step.warp.machine();
    const bool in_tensor_memory = (step.op.modifiers & kAInTensorMemory) != 0;
    const auto word = [&](int operand) {
      return step.reg<std::uint32_t>(operand)[lane] +
             static_cast<std::uint32_t>(step.offset(operand));
    };
    // CuTe has the id of a scale factor in the highest bits of its address.
    const auto scales = [&](int operand) { return tensor_address(word(operand) & 0x3fffffff); };
    const MmaForm form = form_of(step);
    Mma mma{.form = form,
            .shape = decode_shape(form, step.reg<std::uint32_t>(3)[lane]),
            .d = tensor_address(word(0)),
            .a = in_tensor_memory ? word(1) : step.reg<std::uint64_t>(1)[lane],
            .b = step.reg<std::uint64_t>(2)[lane],
            .a_in_tensor_memory = in_tensor_memory,
            .accumulates = (step.predicate(4) >> lane & 1) != 0,
            .shifts_a = (step.op.modifiers & kShiftsA) != 0,
            .d_scale = static_cast<int>(step.op.modifiers >> kScaleDShift & 15)};
    const auto words = static_cast<int>(step.op.modifiers >> kDisableShift & 15);
    int next = 5;
    for (int i = 0; i < words; ++i) mma.disabled.push_back(step.reg<std::uint32_t>(next++)[lane]);
    if (is_block_scaled(form.kind)) {
      mma.a_scales = scales(next++);
      mma.b_scales = scales(next++);
    }
    if ((step.op.modifiers & kZeroColumns) != 0) {
      mma.zero_columns = ColumnMask(step.reg<std::uint64_t>(next++)[lane], mma.shape);
    }
    std::vector<Cta*> ctas = ctas_of(step);
    const EngineWork work{
        .engine = Engine::kTensorCores,
        .amount = static_cast<std::uint64_t>(mma.shape.m) * mma.shape.n / ctas.size(),
        .also = record_of_other(cta, ctas)};
    cluster.asynchronous.push(queue_of(cta), work, [&machine, ctas, mma = std::move(mma)] {
      execute(machine, ctas, mma);
    });
  });
  return Flow::kNext;
}

// cp: rows of shared memory go to lanes (PTX ISA 9.7.16.9.2). Where the rows of a quarter of the
// lanes begin; the same for two of them: they get the same.
enum class Spread : std::uint8_t { kNone, kAllSame, k02And13, k01And23 };
constexpr int kSpreadShift = 4;
constexpr std::int64_t kWideRows = 1 << 8;  // of 32 bytes; else 16
constexpr int kWidenShift = 9;              // 2 bits

// Elements that become bytes, 16 in 16 (PTX ISA 9.7.16.9.1).
enum class Widen : std::uint8_t { kNone, kSixBits, kFourBits };

// Four bits go to the middle of the byte, as an e2m1 of 8 bits has them.
std::array<std::uint32_t, 4> widened(Widen widen, const std::array<std::uint32_t, 4>& piece) {
  if (widen == Widen::kNone) return piece;
  const int width = widen == Widen::kSixBits ? 6 : 4;
  const int low = widen == Widen::kSixBits ? 0 : 2;
  std::array<std::uint32_t, 4> bytes{};
  for (unsigned i = 0; i < kPieceBytes; ++i) {
    const unsigned bit = i * width;
    const std::uint64_t both = piece[bit / 32] | std::uint64_t{piece[bit / 32 + 1]} << 32;
    const auto element = static_cast<std::uint32_t>(both >> (bit % 32)) & ((1U << width) - 1);
    bytes[i / 4] |= element << low << (8 * (i % 4));
  }
  return bytes;
}

int row_of_quarter(Spread spread, int quarter) {
  switch (spread) {
    case Spread::kNone:
      return kLanes * quarter;
    case Spread::kAllSame:
      return 0;
    case Spread::k02And13:
      return kLanes * (quarter % 2);
    case Spread::k01And23:
      return kLanes * (quarter / 2);
  }
  return 0;
}

void copy_in(Cta& cta, TensorAddress to, std::uint64_t from, Spread spread, bool wide,
             Widen widen) {
  const int columns = wide ? 8 : 4;
  cta.tmem.demand(to.column, columns);
  cta.tmem.writes(0, 4, to.column, columns);
  const SharedDescriptor source = tcgen05_descriptor(from);
  for (int lane = 0; lane < kTmemLanes; ++lane) {
    const int row = row_of_quarter(spread, lane / kLanes) + (lane % kLanes);
    for (int piece = 0; piece < columns / 4; ++piece) {
      std::array<std::uint32_t, 4> words{};
      constexpr std::array<int, 3> kBytes{16, 12, 8};
      read_piece(cta, source, row, piece, kBytes.at(static_cast<std::size_t>(widen)), words.data());
      words = widened(widen, words);
      std::ranges::copy(words, cta.tmem.lane(lane) + to.column + (std::size_t{4} * piece));
    }
    cta.tmem.mark_written(lane, to.column, columns);
  }
}

// Operands: address, descriptor.
Flow cp(Step& step) {
  step.each_lane([&](int lane) {
    Cta& cta = step.warp.cta();
    Cluster& cluster = cta.cluster();
    const TensorAddress to = tensor_address(step.reg<std::uint32_t>(0)[lane] +
                                            static_cast<std::uint32_t>(step.offset(0)));
    const std::uint64_t from = step.reg<std::uint64_t>(1)[lane];
    const auto spread = static_cast<Spread>(step.op.modifiers >> kSpreadShift & 3);
    const bool wide = (step.op.modifiers & kWideRows) != 0;
    const auto widen = static_cast<Widen>(step.op.modifiers >> kWidenShift & 3);
    if (to.lane != 0) {
      throw Fault("tensor-memory", "a tcgen05.cp writes from lane " + std::to_string(to.lane) +
                                       "; it must be lane 0");
    }
    const std::vector<Cta*> targets = ctas_of(step);
    step.warp.machine().counters.tensor_copied_in +=
        std::uint64_t{kTmemLanes} * (wide ? 32 : 16) * targets.size();
    cluster.asynchronous.push(queue_of(cta), {}, [ctas = targets, to, from, spread, wide, widen] {
      for (Cta* target : ctas) copy_in(*target, to, from, spread, wide, widen);
    });
  });
  return Flow::kNext;
}

// shift: the rows of a quarter of the lanes, of 8 columns, each to the lane above it, but for the
// first; the last one stays as it is (PTX ISA 9.7.16.9.3).
void shift_rows(Machine& machine, Cta& cta, TensorAddress at) {
  constexpr int kColumns = 8;
  cta.tmem.demand(at.column, kColumns);
  cta.tmem.writes(at.lane / kLanes, 1, at.column, kColumns);
  for (int lane = at.lane; lane < at.lane + kLanes - 1; ++lane) {
    if (!cta.tmem.is_written(lane + 1, at.column, kColumns)) {
      report_unwritten(machine.found, machine.program, lane + 1, at.column, kColumns);
    }
    std::copy_n(cta.tmem.lane(lane + 1) + at.column, kColumns, cta.tmem.lane(lane) + at.column);
    cta.tmem.mark_written(lane, at.column, kColumns);
  }
}

// Operand: address.
Flow shift(Step& step) {
  step.each_lane([&](int lane) {
    const TensorAddress at = tensor_address(step.reg<std::uint32_t>(0)[lane] +
                                            static_cast<std::uint32_t>(step.offset(0)));
    if (at.lane % kLanes != 0 || at.lane >= kTmemLanes) {
      throw Fault("tensor-memory", "a tcgen05.shift begins at lane " + std::to_string(at.lane) +
                                       "; it must be lane 0, 32, 64 or 96");
    }
    Machine& machine = step.warp.machine();
    cluster_of(step).asynchronous.push(queue_of(step.warp.cta()), {},
                                       [&machine, ctas = ctas_of(step), at] {
                                         for (Cta* target : ctas) shift_rows(machine, *target, at);
                                       });
  });
  return Flow::kNext;
}

// Operands: mbarrier, [mask of CTAs]. Modifier kMulticast: there is one.
constexpr std::int64_t kMulticast = 1 << 8;

Flow commit(Step& step) {
  step.each_lane([&](int lane) {
    Cluster& cluster = cluster_of(step);
    const Cluster::Place at = cluster.place(shared_address(step, 0, lane));
    std::uint32_t ctas = 1U << at.cta->rank();
    if ((step.op.modifiers & kMulticast) != 0) ctas = step.reg<std::uint16_t>(1)[lane];
    cluster.asynchronous.push(queue_of(step.warp.cta()), {}, [&cluster, ctas, offset = at.offset] {
      for (std::uint32_t rest = ctas; rest != 0; rest &= rest - 1) {
        const auto rank = static_cast<std::uint32_t>(std::countr_zero(rest));
        cluster.arrive(rank << kRankShift | offset, 1, 0);
      }
    });
  });
  return Flow::kNext;
}

}  // namespace

void register_tcgen05(Registry& registry) {
  registry["tcgen05.alloc"] = alloc;
  registry["tcgen05.dealloc"] = dealloc;
  registry["tcgen05.relinquish"] = relinquish;
  registry["tcgen05.ld"] = access<true>;
  registry["tcgen05.ld.red"] = load_and_reduce;
  registry["tcgen05.shift"] = shift;
  registry["tcgen05.st"] = access<false>;
  registry["tcgen05.wait.ld"] = wait_for_loads;
  registry["tcgen05.wait.st"] = wait_for_stores;
  registry["tcgen05.mma"] = mma;
  registry["tcgen05.cp"] = cp;
  registry["tcgen05.commit"] = commit;
}

}  // namespace gpusim
