// SPDX-License-Identifier: MIT
// wgmma.mma_async of sm_90a (PTX ISA 9.7.15): four warps multiply 64 rows, 16 rows each.
//
// Operands: the registers of D (N / 2, or N / 4 with two f16 each), A (a descriptor, or 4
// registers), the descriptor of B, the predicate scale-d, and as constants scale-a, scale-b,
// trans-a, trans-b.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "formats.h"
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

enum class Result : std::uint8_t { kF32, kF16, kS32 };

// A register of D before and after: `values` of its row, side by side.
std::uint32_t accumulate(Result result, bool saturates, std::uint32_t before, bool accumulates,
                         const float* values) {
  if (result == Result::kF32) {
    return std::bit_cast<std::uint32_t>(accumulates ? std::bit_cast<float>(before) + values[0]
                                                    : values[0]);
  }
  if (result == Result::kF16) {
    std::uint32_t word = 0;
    for (int i = 0; i < 2; ++i) {
      const float old = accumulates ? from_f16(before >> (16 * i) & 0xffff) : 0.0F;
      word |= narrow(kF16, old + values[i], Rounding::kNearestEven, false) << (16 * i);
    }
    return word;
  }
  // The sum of one instruction is exact in float: 32 products of less than 2^16.
  std::int64_t sum = static_cast<std::int64_t>(values[0]);
  if (accumulates) sum += static_cast<std::int32_t>(before);
  if (saturates) {
    sum = std::clamp<std::int64_t>(sum, std::numeric_limits<std::int32_t>::min(),
                                   std::numeric_limits<std::int32_t>::max());
  }
  return static_cast<std::uint32_t>(sum);
}

SharedDescriptor descriptor(std::uint64_t bits) {
  constexpr std::uint32_t kSwizzles[] = {0, 3, 2, 1};
  if ((bits >> 49 & 7) != 0) {
    throw Fault("descriptor", "a matrix descriptor has the base offset " +
                                  std::to_string(bits >> 49 & 7) + "; only 0 is known here");
  }
  return {.start = static_cast<std::uint32_t>(bits & 0x3fff) << 4,
          .leading = static_cast<std::uint32_t>(bits >> 16 & 0x3fff) << 4,
          .stride = static_cast<std::uint32_t>(bits >> 32 & 0x3fff) << 4,
          .swizzle = kSwizzles[bits >> 62 & 3]};
}

// 16 rows of A from registers: a thread holds 4 bytes of row lane / 4, of the row 8 below, and the
// same 16 bytes further right.
std::vector<float> register_operand(Step& step, int operand, Element type) {
  const int element = element_bytes(type);
  const int ks = kOperandBytes / element;
  const int each = 4 / element;
  std::vector<float> values(static_cast<std::size_t>(16) * ks);
  for (int i = 0; i < 4; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t word = step.reg<std::uint32_t>(operand + i)[lane];
      const int row = lane / 4 + 8 * (i % 2);
      for (int j = 0; j < each; ++j) {
        const std::uint32_t bits =
            element == 4 ? word : word >> (8 * element * j) & ((1U << (8 * element)) - 1);
        const int column = lane % 4 * each + j + i / 2 * 4 * each;
        values[static_cast<std::size_t>(row) * ks + column] = element_value(type, bits);
      }
    }
  }
  return values;
}

Flow wgmma(Step& step) {
  if (step.mask != kAllLanes) return Flow::kConverge;
  const auto n = static_cast<int>(step.op.modifiers & kNBits);
  const auto type_a = static_cast<Element>(step.op.modifiers >> kTypeAShift & 15);
  const auto type_b = static_cast<Element>(step.op.modifiers >> kTypeBShift & 15);
  const bool in_registers = (step.op.modifiers & kAInRegisters) != 0;
  const auto result = static_cast<Result>(step.op.modifiers >> kResultShift & 3);
  const int together = result == Result::kF16 ? 2 : 1;  // elements of D in a register
  const int a_at = n / 2 / together;
  const int b_at = a_at + (in_registers ? 4 : 1);
  const auto constant = [&](int operand) { return *step.reg<std::int32_t>(operand); };
  const bool trans_a = constant(b_at + 4) != 0;
  const bool trans_b = constant(b_at + 5) != 0;
  Cta& cta = step.warp.cta();
  const int ks = kOperandBytes / element_bytes(type_a);
  const std::vector<float> a = in_registers
                                   ? register_operand(step, a_at, type_a)
                                   : read_operand(cta, descriptor(*step.reg<std::uint64_t>(a_at)),
                                                  16 * (step.warp.id() % 4), 16, type_a, trans_a);
  const std::vector<float> b =
      read_operand(cta, descriptor(*step.reg<std::uint64_t>(b_at)), 0, n, type_b, trans_b);
  std::vector<float> product(static_cast<std::size_t>(16) * n);
  multiply(a, b, 16, n, ks, product.data());
  const auto sign = static_cast<float>(constant(b_at + 2) * constant(b_at + 3));
  const bool accumulates = (step.predicate(b_at + 1) & 1) != 0;
  for (float& value : product) value *= sign;
  const bool saturates = (step.op.modifiers & kSaturates) != 0;
  for (int i = 0; i < a_at; ++i) {
    std::uint32_t* const d = step.reg<std::uint32_t>(i);
    const int first = i * together;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int row = lane / 4 + 8 * (first / 2 % 2);
      const int column = 8 * (first / 4) + 2 * (lane % 4) + first % 2;
      d[lane] = accumulate(result, saturates, d[lane], accumulates,
                           product.data() + (static_cast<std::size_t>(row) * n) + column);
    }
  }
  Counters& counters = step.warp.machine().counters;
  const bool first_of_group = step.warp.id() % 4 == 0;  // its warps share the instruction, and B
  counters.multiplied(std::string("wgmma.") + name_of(type_a), first_of_group ? 1 : 0,
                      std::uint64_t{2} * 16 * static_cast<std::uint64_t>(n * ks));
  counters.shared_mma +=
      static_cast<std::uint64_t>(kOperandBytes) *
      ((in_registers ? 0 : 16) + (first_of_group ? static_cast<unsigned>(n) : 0));
  if (step.warp.agent.record != nullptr) {
    const EngineWork work{.engine = Engine::kTensorCores,
                          .amount = std::uint64_t{16} * static_cast<unsigned>(n)};
    step.warp.tensor_agent.knows.reached = {.cycle = step.warp.agent.record->recorder->begin(work),
                                            .pc = step.warp.agent.pc};
  }
  return Flow::kNext;
}

// The results are there at once; in a recorded launch they are late.
Flow wait_group(Step& step) {
  step.warp.agent.knows.join(step.warp.tensor_agent.knows);
  return Flow::kNext;
}

}  // namespace

void register_wgmma(Registry& registry) {
  registry["wgmma"] = wgmma;
  registry["wgmma.wait_group"] = wait_group;
}

}  // namespace gpusim
