// SPDX-License-Identifier: MIT
// The tensor cores of sm_100a and their memory (PTX ISA 9.7.16 "tcgen05").
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

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
    step.fragment.waits_for = std::to_string(columns) + " columns of tensor memory";
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

// The lanes that a warp may read and write: a quarter.
int first_lane(Step& step, const TensorAddress& at) {
  const int own = kLanes * (step.warp.id() % 4);
  if (at.lane != own) {
    throw Fault("tensor-memory",
                "warp " + std::to_string(step.warp.id()) + " accesses tensor memory from lane " +
                    std::to_string(at.lane) + ", but its quarter begins at " + std::to_string(own));
  }
  return own;
}

// ld and st go on by themselves until the warp waits for them: their agent acts.
void begin_access(Step& step) {
  Agent& agent = step.warp.tensor_agent;
  agent.knows.join(step.warp.agent.knows);
  agent.pc = step.warp.agent.pc;
  agent.tick();
  acting = &agent;
}

Flow wait(Step& step) {
  step.warp.agent.knows.join(step.warp.tensor_agent.knows);
  return Flow::kNext;
}

// .32x32b: a thread has a lane, a register a column. Operands: registers, address.
template <bool kLoad>
Flow access_32x32b(Step& step) {
  if (step.mask != kAllLanes) return Flow::kConverge;
  const auto columns = static_cast<int>(step.op.modifiers >> 8);
  const TensorAddress at = tensor_address(step.value<std::uint32_t>(columns) +
                                          static_cast<std::uint32_t>(step.offset(columns)));
  TensorMemory& tmem = step.warp.cta().tmem;
  tmem.demand(at.column, columns);
  const int first = first_lane(step, at);
  begin_access(step);
  if constexpr (kLoad) {
    tmem.reads(first / kLanes, 1, at.column, columns);
  } else {
    tmem.writes(first / kLanes, 1, at.column, columns);
  }
  acting = &step.warp.agent;
  for (int column = 0; column < columns; ++column) {
    if (step.sink(column)) continue;
    std::uint32_t* const values = step.reg<std::uint32_t>(column);
    for (int lane = 0; lane < kLanes; ++lane) {
      std::uint32_t& word = tmem.lane(first + lane)[at.column + column];
      if constexpr (kLoad) {
        values[lane] = word;
      } else {
        word = values[lane];
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

struct Mma {
  Kind kind;
  InstructionDescriptor shape;
  TensorAddress d;
  std::uint64_t a;  // a descriptor, or an address in tensor memory
  std::uint64_t b;
  bool a_in_tensor_memory, weight_stationary, accumulates;
  std::vector<std::uint32_t> disabled;  // lanes of D, a bit each
};

// A from tensor memory: a lane is a row, a column holds 4 bytes of it.
std::vector<float> tensor_memory_operand(Cta& cta, TensorAddress at, int rows, Element type) {
  const int bytes = element_bytes(type);
  const int ks = kOperandBytes / bytes;
  const int each = 4 / bytes;
  cta.tmem.demand(at.column, kOperandBytes / 4);
  cta.tmem.reads(0, 4, at.column, kOperandBytes / 4);
  std::vector<float> values(static_cast<std::size_t>(rows) * ks);
  for (int row = 0; row < rows; ++row) {
    const std::uint32_t* const words = cta.tmem.lane(at.lane + row) + at.column;
    for (int k = 0; k < ks; ++k) {
      const std::uint32_t word = words[k / each];
      const std::uint32_t bits =
          bytes == 4 ? word : word >> (8 * bytes * (k % each)) & ((1U << (8 * bytes)) - 1);
      values[static_cast<std::size_t>(row) * ks + k] = element_value(type, bits);
    }
  }
  return values;
}

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

void execute(Machine& machine, std::vector<Cta*> ctas, const Mma& mma) {
  const auto pair = static_cast<int>(ctas.size());
  const Element type_a = element(mma.kind, mma.shape.a_type);
  const Element type_b = element(mma.kind, mma.shape.b_type);
  const int ks = kOperandBytes / element_bytes(type_a);
  const int n = mma.shape.n;
  const int rows = mma.shape.m / pair;
  if (mma.shape.d_type != 1 || mma.shape.sparse || n == 0 || mma.d.lane != 0) {
    throw Fault("descriptor",
                "an MMA with another result than f32, a sparse one, one without columns "
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
  for (Cta* cta : ctas) {
    const std::vector<float> a =
        mma.a_in_tensor_memory
            ? tensor_memory_operand(*cta, tensor_address(static_cast<std::uint32_t>(mma.a)), rows,
                                    type_a)
            : read_operand(*cta, descriptor(mma.a), 0, rows, type_a, mma.shape.a_mn_major);
    multiply(a, b, rows, n, ks, product.data());
    const ResultLayout layout(mma, rows, pair == 2);
    cta->tmem.demand(mma.d.column, layout.columns);
    cta->tmem.writes(0, 4, mma.d.column, layout.columns);
    for (int row = 0; row < rows; ++row) {
      for (int half = 0; half * layout.columns < n; ++half) {
        const int lane = layout.lane(row, half);
        const auto word = static_cast<std::size_t>(lane / 32);
        if (word < mma.disabled.size() && (mma.disabled[word] >> (lane % 32) & 1) != 0) continue;
        const float* const from =
            product.data() + (static_cast<std::size_t>(row) * n) + (half * layout.columns);
        std::uint32_t* const d = cta->tmem.lane(lane) + mma.d.column;
        for (int column = 0; column < layout.columns; ++column) {
          const float before = mma.accumulates ? std::bit_cast<float>(d[column]) : 0.0F;
          d[column] = std::bit_cast<std::uint32_t>(before + (sign * from[column]));
        }
      }
    }
  }
  machine.counters.mma_flops += std::uint64_t{2} * static_cast<std::uint64_t>(mma.shape.m) *
                                static_cast<std::uint64_t>(n * ks);
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
    std::vector<Cta*> ctas{&cta};
    if ((step.op.modifiers & kPair) != 0) {
      const std::uint32_t even = cta.rank() & ~1U;
      if (even + 1 >= cluster.ctas.size()) {
        throw Fault("descriptor", "an MMA of two CTAs runs in a cluster of " +
                                      std::to_string(cluster.ctas.size()));
      }
      ctas = {cluster.ctas[even].get(), cluster.ctas[even + 1].get()};
    }
    ++machine.counters.mma_instructions;
    cluster.asynchronous.push(
        queue_of(cta), [&machine, ctas, mma = std::move(mma)] { execute(machine, ctas, mma); });
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
    cluster.asynchronous.push(queue_of(step.warp.cta()), [&cluster, ctas, offset = at.offset] {
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
  registry["tcgen05.ld.32x32b"] = access_32x32b<true>;
  registry["tcgen05.st.32x32b"] = access_32x32b<false>;
  registry["tcgen05.wait"] = wait;
  registry["tcgen05.mma"] = mma;
  registry["tcgen05.commit"] = commit;
}

}  // namespace gpusim
