// SPDX-License-Identifier: MIT
// The tensor cores of sm_100a and their memory (PTX ISA 9.7.16 "tcgen05").
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "formats.h"
#include "matrices.h"

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

// Tensor memory addresses: the lane above, the column below.
struct TensorAddress {
  int lane;
  int column;
};
TensorAddress tensor_address(std::uint32_t bits) {
  return {static_cast<int>(bits >> 16), static_cast<int>(bits & 0xffff)};
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
  const Cluster::Place to = cluster_of(step).place(shared_address(step, 0, step.lane()));
  const auto address = static_cast<std::uint32_t>(first);
  std::memcpy(to.cta->shared.at(to.offset, 4, 4), &address, 4);
  to.cta->shared.wrote(to.offset, 4);
  return Flow::kNext;
}

// Operands: address, columns.
Flow dealloc(Step& step) {
  const TensorAddress at = tensor_address(step.value<std::uint32_t>(0));
  step.warp.cta().tmem.release(at.column, static_cast<int>(step.value<std::uint32_t>(1)));
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
constexpr int kSplitShift = 24;  // .16x32bx2: columns from the first half to the second

TensorAddress word_of(Shape shape, int thread, int i, int split) {
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
      return {thread % 16, i + (thread / 16 * split)};
  }
  return {0, 0};
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
  warp.agent.knows.join(warp.load_agent.knows);
  warp.tensor_loads.waited = warp.tensor_loads.issued;
  return Flow::kNext;
}

Flow wait_for_stores(Step& step) {
  step.warp.agent.knows.join(step.warp.store_agent.knows);
  return Flow::kNext;
}

// Words that a tcgen05.ld reads, one by one: of one lane they need not stand side by side.
void demand_written(Step& step, Shape shape, int first, int column, int registers, int split) {
  const TensorMemory& tmem = step.warp.cta().tmem;
  for (int i = 0; i < registers; ++i) {
    if (step.sink(i)) continue;
    for (int thread = 0; thread < kLanes; ++thread) {
      const TensorAddress word = word_of(shape, thread, i, split);
      if (tmem.is_written(first + word.lane, column + word.column, 1)) continue;
      Machine& machine = step.warp.machine();
      report_unwritten(machine.found, machine.program, first + word.lane, column + word.column, 1);
      return;
    }
  }
}

// Operands: registers, address.
template <bool kLoad>
Flow access(Step& step) {
  if (step.mask != kAllLanes) return Flow::kConverge;
  const auto registers = static_cast<int>(step.op.modifiers >> kRegistersShift & 0xff);
  const auto shape = static_cast<Shape>(step.op.modifiers >> kShapeShift & 7);
  const auto split = static_cast<int>(step.op.modifiers >> kSplitShift);
  const TensorAddress at = tensor_address(step.value<std::uint32_t>(registers) +
                                          static_cast<std::uint32_t>(step.offset(registers)));
  TensorMemory& tmem = step.warp.cta().tmem;
  const int first = first_lane(step, at, shape);
  const bool by_column = shape == Shape::k32x32b || shape == Shape::k16x32bx2;
  const int columns = by_column ? registers : 2 * registers;
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
  if (shape == Shape::k16x32bx2) touch(at.column + split);
  if constexpr (kLoad) demand_written(step, shape, first, at.column, registers, split);
  Counters& counters = step.warp.machine().counters;
  (kLoad ? counters.tensor_loaded : counters.tensor_stored) +=
      std::uint64_t{4} * kLanes * static_cast<std::uint64_t>(registers);
  for (int i = 0; i < registers; ++i) {
    if (step.sink(i)) continue;
    std::uint32_t* const values = step.reg<std::uint32_t>(i);
    for (int thread = 0; thread < kLanes; ++thread) {
      const TensorAddress word = word_of(shape, thread, i, split);
      std::uint32_t& there = tmem.lane(first + word.lane)[at.column + word.column];
      if constexpr (kLoad) {
        values[thread] = there;
      } else {
        there = values[thread];
        tmem.mark_written(first + word.lane, at.column + word.column, 1);
      }
    }
  }
  return Flow::kNext;
}

SharedDescriptor descriptor(std::uint64_t bits) {
  std::uint32_t swizzle = 0;
  switch (bits >> 61) {
    case 0:
      break;
    case 2:
      swizzle = 3;
      break;
    case 4:
      swizzle = 2;
      break;
    case 6:
      swizzle = 1;
      break;
    default:
      throw Fault("descriptor", "a matrix descriptor has the swizzle mode " +
                                    std::to_string(bits >> 61) + ", which is not known here");
  }
  if ((bits >> 46 & 7) != 1 || (bits >> 49 & 7) != 0) {
    throw Fault("descriptor",
                "the matrix descriptor " + hex(bits) + " is not of version 1 with base offset 0");
  }
  return {.start = static_cast<std::uint32_t>(bits & 0x3fff) << 4,
          .leading = static_cast<std::uint32_t>(bits >> 16 & 0x3fff) << 4,
          .stride = static_cast<std::uint32_t>(bits >> 32 & 0x3fff) << 4,
          .swizzle = swizzle};
}

// PTX ISA 9.7.16.4.2 "instruction descriptor".
struct InstructionDescriptor {
  explicit InstructionDescriptor(std::uint32_t bits)
      : sparse((bits >> 2 & 1) != 0),
        d_type(bits >> 4 & 3),
        a_type(bits >> 7 & 7),
        b_type(bits >> 10 & 7),
        a_negated((bits >> 13 & 1) != 0),
        b_negated((bits >> 14 & 1) != 0),
        a_mn_major((bits >> 15 & 1) != 0),
        b_mn_major((bits >> 16 & 1) != 0),
        n(static_cast<int>(bits >> 17 & 0x3f) << 3),
        m(static_cast<int>(bits >> 24 & 0x1f) << 4) {}
  bool sparse;
  std::uint32_t d_type, a_type, b_type;
  bool a_negated, b_negated, a_mn_major, b_mn_major;
  int n, m;
};

enum class Kind : std::uint8_t { kF16, kTf32, kF8f6f4 };

Element element(Kind kind, std::uint32_t type) {
  if (kind == Kind::kF16 && type <= 1) return type == 0 ? Element::kF16 : Element::kBf16;
  if (kind == Kind::kTf32 && type == 2) return Element::kTf32;
  if (kind == Kind::kF8f6f4) {
    switch (type) {
      case 0:
        return Element::kE4m3;
      case 1:
        return Element::kE5m2;
      case 3:
        return Element::kE2m3;
      case 4:
        return Element::kE3m2;
      case 5:
        return Element::kE2m1;
      default:
        break;
    }
  }
  throw Fault("descriptor", "an instruction descriptor names element type " + std::to_string(type) +
                                ", which its kind of MMA does not have");
}

// Modifiers of mma.
constexpr int kKindShift = 4;
constexpr std::int64_t kAInTensorMemory = 1 << 8;
constexpr std::int64_t kWeightStationary = 1 << 9;
constexpr int kDisableShift = 12;  // words of the mask of disabled lanes

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

struct Mma {
  Kind kind;
  InstructionDescriptor shape;
  TensorAddress d;
  std::uint64_t a;  // a descriptor, or an address in tensor memory
  std::uint64_t b;
  bool a_in_tensor_memory, weight_stationary, accumulates;
  std::vector<std::uint32_t> disabled;  // lanes of D, a bit each
};

// The halves of a CTA's part of D (PTX ISA 9.7.16.10.5, layouts A to F): `columns` of them stand
// side by side, the others 64 lanes below.
struct ResultLayout {
  int columns;
  bool spread;  // layout F: every 16 rows take the first half of 32 lanes

  ResultLayout(const Mma& mma, int rows, bool pair)
      : columns(rows == 64 && (pair || mma.weight_stationary) ? mma.shape.n / 2 : mma.shape.n),
        spread(rows == 64 && columns == mma.shape.n) {
    if (rows == 128 || rows == 64) return;
    throw Fault("descriptor",
                "an MMA with M = " + std::to_string(mma.shape.m) + " is not known here");
  }
  [[nodiscard]] int lane(int row, int half) const {
    return spread ? (row / 16 * 32) + (row % 16) : row + (64 * half);
  }
};

// A from tensor memory: a lane is a row, in the places of D's rows; a column holds 4 bytes of it.
// Each half of D has an A of its own.
std::vector<float> tensor_memory_operand(Machine& machine, Cta& cta, TensorAddress at,
                                         const ResultLayout& layout, int half, int rows,
                                         Element type) {
  const int bytes = element_bytes(type);
  const int ks = kOperandBytes / bytes;
  const int each = 4 / bytes;
  cta.tmem.demand(at.column, kOperandBytes / 4);
  cta.tmem.reads(0, 4, at.column, kOperandBytes / 4);
  std::vector<float> values(static_cast<std::size_t>(rows) * ks);
  for (int row = 0; row < rows; ++row) {
    const int lane = layout.lane(row, half);
    if (!cta.tmem.is_written(lane, at.column, kOperandBytes / 4)) {
      report_unwritten(machine.found, machine.program, lane, at.column, kOperandBytes / 4);
    }
    const std::uint32_t* const words = cta.tmem.lane(lane) + at.column;
    for (int k = 0; k < ks; ++k) {
      const std::uint32_t word = words[k / each];
      const std::uint32_t bits =
          bytes == 4 ? word : word >> (8 * bytes * (k % each)) & ((1U << (8 * bytes)) - 1);
      values[static_cast<std::size_t>(row) * ks + k] = element_value(type, bits);
    }
  }
  return values;
}

// A word of D has one element, an f16 in its lower half.
float d_value(std::uint32_t word, bool half) {
  return half ? from_f16(static_cast<std::uint16_t>(word)) : std::bit_cast<float>(word);
}

std::uint32_t d_word(float value, bool half) {
  return half ? narrow(kF16, value, Rounding::kNearestEven, false)
              : std::bit_cast<std::uint32_t>(value);
}

void count(Counters& counters, const Mma& mma, int ks) {
  const auto m = static_cast<std::uint64_t>(mma.shape.m);
  const auto n = static_cast<std::uint64_t>(mma.shape.n);
  constexpr const char* kNames[] = {"tcgen05.f16", "tcgen05.tf32", "tcgen05.f8f6f4"};
  counters.multiplied(kNames[static_cast<std::size_t>(mma.kind)], 1,
                      2 * m * n * static_cast<std::uint64_t>(ks));
  constexpr std::uint64_t kRow = kOperandBytes;
  const std::uint64_t result = 4 * m * n;
  counters.shared_mma += kRow * (mma.a_in_tensor_memory ? n : m + n);
  counters.tensor_mma_read +=
      (mma.a_in_tensor_memory ? kRow * m : 0) + (mma.accumulates ? result : 0);
  counters.tensor_mma_written += result;
}

void execute(Machine& machine, std::vector<Cta*> ctas, const Mma& mma) {
  const auto pair = static_cast<int>(ctas.size());
  const Element type_a = element(mma.kind, mma.shape.a_type);
  const Element type_b = element(mma.kind, mma.shape.b_type);
  const int ks = kOperandBytes / element_bytes(type_a);
  const int n = mma.shape.n;
  const int rows = mma.shape.m / pair;
  const bool half_d = mma.shape.d_type == 0 && mma.kind != Kind::kTf32;
  const auto a_at = tensor_address(static_cast<std::uint32_t>(mma.a));
  if ((mma.shape.d_type != 1 && !half_d) || mma.shape.sparse || n == 0 || mma.d.lane != 0 ||
      (mma.a_in_tensor_memory && a_at.lane != 0)) {
    throw Fault("descriptor",
                "an MMA with another result than f32 or f16, a sparse one, one without columns "
                "and one that does not begin at lane 0 are not known here");
  }
  std::vector<float> b;
  for (Cta* cta : ctas) {
    const std::vector<float> part =
        read_operand(*cta, descriptor(mma.b), 0, n / pair, type_b, mma.shape.b_mn_major);
    b.insert(b.end(), part.begin(), part.end());
  }
  const float sign = mma.shape.a_negated != mma.shape.b_negated ? -1.0F : 1.0F;
  std::vector<float> product(static_cast<std::size_t>(rows) * n);
  const ResultLayout layout(mma, rows, pair == 2);
  for (std::size_t i = 0; i < ctas.size(); ++i) {
    Cta* const cta = ctas[i];
    cta->tmem.demand(mma.d.column, layout.columns);
    cta->tmem.writes(0, 4, mma.d.column, layout.columns);
    for (int half = 0; half * layout.columns < n; ++half) {
      if (mma.a_in_tensor_memory) {
        multiply(tensor_memory_operand(machine, *cta, a_at, layout, half, rows, type_a), b, rows, n,
                 ks, product.data());
      } else if (half == 0) {
        multiply(read_operand(*cta, descriptor(mma.a), 0, rows, type_a, mma.shape.a_mn_major), b,
                 rows, n, ks, product.data());
      }
      for (int row = 0; row < rows; ++row) {
        const int lane = layout.lane(row, half);
        // The second CTA of a pair has the second half of the mask.
        const std::size_t word = static_cast<std::size_t>(lane / 32) + (4 * i);
        if (word < mma.disabled.size() && (mma.disabled[word] >> (lane % 32) & 1) != 0) continue;
        const float* const from = product.data() + (static_cast<std::size_t>(row) * n) +
                                  (static_cast<std::size_t>(half) * layout.columns);
        if (mma.accumulates && !cta->tmem.is_written(lane, mma.d.column, layout.columns)) {
          report_unwritten(machine.found, machine.program, lane, mma.d.column, layout.columns);
        }
        cta->tmem.mark_written(lane, mma.d.column, layout.columns);
        std::uint32_t* const d = cta->tmem.lane(lane) + mma.d.column;
        for (int column = 0; column < layout.columns; ++column) {
          const float before = mma.accumulates ? d_value(d[column], half_d) : 0.0F;
          d[column] = d_word(before + (sign * from[column]), half_d);
        }
      }
    }
  }
  count(machine.counters, mma, ks);
}

// Null if the launch is not recorded, or there is no other.
CtaRecord* record_of_other(const Cta& cta, const std::vector<Cta*>& ctas) {
  Cta* const other = ctas.front() == &cta ? ctas.back() : ctas.front();
  return other == &cta ? nullptr : other->warps.front()->agent.record;
}

// Operands: D, A, the descriptor of B, the instruction's descriptor, the predicate enable-input-d,
// [the mask of disabled lanes].
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
    Mma mma{.kind = static_cast<Kind>(step.op.modifiers >> kKindShift & 15),
            .shape = InstructionDescriptor(step.reg<std::uint32_t>(3)[lane]),
            .d = tensor_address(word(0)),
            .a = in_tensor_memory ? word(1) : step.reg<std::uint64_t>(1)[lane],
            .b = step.reg<std::uint64_t>(2)[lane],
            .a_in_tensor_memory = in_tensor_memory,
            .weight_stationary = (step.op.modifiers & kWeightStationary) != 0,
            .accumulates = (step.predicate(4) >> lane & 1) != 0,
            .disabled = {}};
    const auto words = static_cast<int>(step.op.modifiers >> kDisableShift & 15);
    for (int i = 0; i < words; ++i) mma.disabled.push_back(step.reg<std::uint32_t>(5 + i)[lane]);
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

void copy_in(Cta& cta, TensorAddress to, std::uint64_t from, Spread spread, bool wide) {
  const int columns = wide ? 8 : 4;
  cta.tmem.demand(to.column, columns);
  cta.tmem.writes(0, 4, to.column, columns);
  const SharedDescriptor source = descriptor(from);
  for (int lane = 0; lane < kTmemLanes; ++lane) {
    const int row = row_of_quarter(spread, lane / kLanes) + (lane % kLanes);
    for (int piece = 0; piece < columns / 4; ++piece) {
      std::uint32_t* const words = cta.tmem.lane(lane) + to.column;
      read_piece(cta, source, row, piece, words + (std::size_t{4} * piece));
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
    if (to.lane != 0) {
      throw Fault("tensor-memory", "a tcgen05.cp writes from lane " + std::to_string(to.lane) +
                                       "; it must be lane 0");
    }
    const std::vector<Cta*> targets = ctas_of(step);
    step.warp.machine().counters.tensor_copied_in +=
        std::uint64_t{kTmemLanes} * (wide ? 32 : 16) * targets.size();
    cluster.asynchronous.push(queue_of(cta), {}, [ctas = targets, to, from, spread, wide] {
      for (Cta* target : ctas) copy_in(*target, to, from, spread, wide);
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
        cluster.arrive(cluster.mbarrier(rank << kRankShift | offset), 1, 0);
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
  registry["tcgen05.st"] = access<false>;
  registry["tcgen05.wait.ld"] = wait_for_loads;
  registry["tcgen05.wait.st"] = wait_for_stores;
  registry["tcgen05.mma"] = mma;
  registry["tcgen05.cp"] = cp;
  registry["tcgen05.commit"] = commit;
}

}  // namespace gpusim
