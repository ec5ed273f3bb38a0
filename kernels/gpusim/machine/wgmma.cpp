// SPDX-License-Identifier: MIT
// wgmma.mma_async of sm_90a (PTX ISA 9.7.15): four warps multiply 64 rows, 16 rows each.
//
// Operands: the registers of D (N / 2, or N / 4 with two f16 each), A (a descriptor, or 4
// registers), the descriptor of B, the predicate scale-d, and as constants scale-a, scale-b,
// trans-a, trans-b.
#include <cstdint>
#include <vector>

#include "matrices.h"

namespace gpusim {
namespace {

// Modifiers.
constexpr int kTypeAShift = 10;
constexpr int kTypeBShift = 14;
constexpr std::int64_t kNBits = 0x1ff;
constexpr std::int64_t kAInRegisters = 1 << 18;
constexpr int kResultShift = 19;              // 2 bits
constexpr std::int64_t kSaturates = 1 << 21;  // sums of integers

SharedDescriptor descriptor(std::uint64_t bits) {
  constexpr std::uint32_t kSwizzles[] = {0, 3, 2, 1};
  return {.start = static_cast<std::uint32_t>(bits & 0x3fff) << 4,
          .leading = static_cast<std::uint32_t>(bits >> 16 & 0x3fff) << 4,
          .stride = static_cast<std::uint32_t>(bits >> 32 & 0x3fff) << 4,
          .swizzle = kSwizzles[bits >> 62 & 3],
          .pattern = static_cast<std::uint32_t>(bits >> 49 & 7) << 7};
}

// 16 rows of A from a warp's registers: a thread holds 4 bytes of row lane / 4, of the row 8 below,
// and the same 16 bytes further right.
void register_operand(Warp& warp, const Operand* operands, Element type, float* values) {
  const int element = element_bytes(type);
  const int ks = kOperandBytes / element;
  const int each = 4 / element;
  for (int i = 0; i < 4; ++i) {
    const auto* const words = warp.place<std::uint32_t>(operands[i].at);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int row = lane / 4 + 8 * (i % 2);
      for (int j = 0; j < each; ++j) {
        const std::uint32_t bits =
            element == 4 ? words[lane]
                         : words[lane] >> (8 * element * j) & ((1U << (8 * element)) - 1);
        const int column = lane % 4 * each + j + i / 2 * 4 * each;
        values[static_cast<std::size_t>(row) * ks + column] = element_value(type, bits);
      }
    }
  }
}

constexpr int kRows = 16;  // of a warp
constexpr int kWarps = 4;  // of a warpgroup

// The number of the first warp of this one's warpgroup.
std::size_t first_of(Warp& warp) {
  const auto id = static_cast<std::size_t>(warp.id());
  return id - (id % kWarps);
}

// What a wgmma says.
struct Wgmma {
  explicit Wgmma(const Op& op)
      : n(static_cast<int>(op.modifiers & kNBits)),
        type_a(static_cast<Element>(op.modifiers >> kTypeAShift & 15)),
        type_b(static_cast<Element>(op.modifiers >> kTypeBShift & 15)),
        in_registers((op.modifiers & kAInRegisters) != 0),
        saturates((op.modifiers & kSaturates) != 0),
        result(static_cast<Result>(op.modifiers >> kResultShift & 3)),
        together(result == Result::kF16 ? 2 : 1),
        ks(kOperandBytes / element_bytes(type_a)),
        a_at(n / 2 / together),
        b_at(a_at + (in_registers ? 4 : 1)) {}
  int n;
  Element type_a, type_b;
  bool in_registers, saturates;
  Result result;
  int together;  // elements of D in a register
  int ks;
  int a_at, b_at;  // operands
};

// The predicate scale-d.
bool reads_d(Warp& warp, const Operand* operands, const Wgmma& wgmma) {
  return (*warp.place<Mask>(operands[wgmma.b_at + 1].at) & 1) != 0;
}

// A warp's rows of D.
void accumulate_rows(Warp& warp, const Operand* operands, const Wgmma& wgmma,
                     const float* product) {
  const bool accumulates = reads_d(warp, operands, wgmma);
  for (int i = 0; i < wgmma.a_at; ++i) {
    auto* const d = warp.place<std::uint32_t>(operands[i].at);
    const int first = i * wgmma.together;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int row = lane / 4 + 8 * (first / 2 % 2);
      const int column = 8 * (first / 4) + 2 * (lane % 4) + first % 2;
      d[lane] = accumulate(wgmma.result, wgmma.saturates, d[lane], accumulates,
                           product + (static_cast<std::size_t>(row) * wgmma.n) + column);
    }
  }
}

// Those of the warpgroup read shared memory as one agent, of which a warp knows when it has waited.
void begin_reads(Agent& agent, Step& step) {
  Cta& cta = step.warp.cta();
  const auto first = first_of(step.warp);
  for (std::size_t i = first; i < first + kWarps; ++i) {
    agent.knows.join(cta.warps[i]->agent.knows);
  }
  agent.pc = step.warp.agent.pc;
  agent.tick();
  acting = &agent;
}

void execute(Step& step) {
  const Wgmma wgmma(step.op);
  Cta& cta = step.warp.cta();
  const auto constant = [&](int operand) { return *step.reg<std::int32_t>(operand); };
  const auto first = first_of(step.warp);
  const auto rows = static_cast<std::size_t>(kRows) * wgmma.ks;
  begin_reads(cta.warps[first]->load_agent, step);
  std::vector<float> a(kWarps * rows);
  if (wgmma.in_registers) {
    for (std::size_t i = 0; i < kWarps; ++i) {
      register_operand(*cta.warps[first + i], step.operands + wgmma.a_at, wgmma.type_a,
                       a.data() + (i * rows));
    }
  } else {
    a = read_operand(cta, descriptor(*step.reg<std::uint64_t>(wgmma.a_at)), 0, kWarps * kRows,
                     wgmma.type_a, constant(wgmma.b_at + 4) != 0);
  }
  const std::vector<float> b =
      read_operand(cta, descriptor(*step.reg<std::uint64_t>(wgmma.b_at)), 0, wgmma.n, wgmma.type_b,
                   constant(wgmma.b_at + 5) != 0);
  acting = &step.warp.agent;
  std::vector<float> product(static_cast<std::size_t>(kWarps * kRows) * wgmma.n);
  multiply(a, b, kWarps * kRows, wgmma.n, wgmma.ks, product.data());
  const auto sign = static_cast<float>(constant(wgmma.b_at + 2) * constant(wgmma.b_at + 3));
  for (float& value : product) value *= sign;
  for (std::size_t i = 0; i < kWarps; ++i) {
    accumulate_rows(*cta.warps[first + i], step.operands, wgmma,
                    product.data() + (i * kRows * static_cast<std::size_t>(wgmma.n)));
  }
  Counters& counters = step.warp.machine().counters;
  counters.multiplied(
      std::string("wgmma.") + name_of(wgmma.type_a), 1,
      std::uint64_t{2} * kWarps * kRows * static_cast<std::uint64_t>(wgmma.n * wgmma.ks));
  counters.shared_mma += static_cast<std::uint64_t>(kOperandBytes) *
                         static_cast<unsigned>((wgmma.in_registers ? 0 : kWarps * kRows) + wgmma.n);
  if (step.warp.agent.record != nullptr) {
    const EngineWork work{.engine = Engine::kTensorCores,
                          .amount = static_cast<std::uint64_t>(kWarps * kRows * wgmma.n)};
    cta.warps[first]->load_agent.knows.reached = {
        .cycle = step.warp.agent.record->recorder->begin(work), .pc = step.warp.agent.pc};
  }
}

// PTX ISA 9.7.15: the first one needs a wgmma.fence, whatever its registers.
void demand_fence(Step& step) {
  if (step.warp.wgmmas.fenced) return;
  step.warp.machine().found.add("wgmma-fence", step.warp.agent.pc, "", [&] {
    return "a wgmma is executed before any wgmma.fence\n  " + whereabouts(step.warp, step.mask);
  });
}

Flow wgmma(Step& step) {
  if (step.mask != kAllLanes) return Flow::kConverge;
  Cta& cta = step.warp.cta();
  if (first_of(step.warp) + kWarps > cta.warps.size()) {
    throw Fault("wgmma", "a CTA of " + std::to_string(cta.warps.size()) +
                             " warps executes a wgmma in its last, incomplete group of four");
  }
  Warpgroup& group = cta.warpgroups[first_of(step.warp) / kWarps];
  Fragment& fragment = step.fragment;
  if (!fragment.arrived) {
    if (group.arrived != 0 && group.pc != fragment.pc) {
      throw Fault("wgmma", "warps of one warpgroup execute different wgmmas; another is at " +
                               step.warp.machine().program.texts[group.pc]);
    }
    demand_fence(step);
    fragment.arrived = true;
    fragment.phase = group.phase;
    group.pc = fragment.pc;
    group.arrived |= 1U << (step.warp.id() % kWarps);
  }
  if (fragment.phase == group.phase) {
    if (group.arrived != (1U << kWarps) - 1) {
      fragment.waits_for = "the other warps of its warpgroup";
      return Flow::kWait;
    }
    execute(step);
    group.arrived = 0;
    ++group.phase;
    cluster_of(step).happened();
  }
  fragment.arrived = false;
  return Flow::kNext;
}

Flow fence(Step& step) {
  step.warp.wgmmas.fenced = true;
  for (WatchedRegister& watched : step.warp.watched) watched.unfenced = false;
  return Flow::kNext;
}

Flow commit_group(Step& step) {
  const Agent& reader = step.warp.cta().warps[first_of(step.warp)]->load_agent;
  step.warp.wgmmas.commit(reader.now, reader.knows.reached);
  return Flow::kNext;
}

// Modifiers: the groups that need not be complete.
Flow wait_group(Step& step) {
  step.warp.wgmmas.wait(static_cast<std::size_t>(step.op.modifiers));
  return Flow::kNext;
}

}  // namespace

bool wgmma_accumulates(Warp& warp, const Operand* operands, const Op& op) {
  return reads_d(warp, operands, Wgmma(op));
}

void register_wgmma(Registry& registry) {
  registry["wgmma"] = wgmma;
  registry["wgmma.fence"] = fence;
  registry["wgmma.commit_group"] = commit_group;
  registry["wgmma.wait_group"] = wait_group;
  registry["wgmma.wait_all"] = wait_group;
}

}  // namespace gpusim
