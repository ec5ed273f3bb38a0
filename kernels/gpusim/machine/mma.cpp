// SPDX-License-Identifier: MIT
// mma.sync (PTX ISA 9.7.14.5): a warp multiplies matrices that lie in its registers.
//
// Operands: the registers of D, A, B and C. All shapes have their elements alike: the lanes 4 * g
// to 4 * g + 3 have row g of A, of C and D, and of B column g. They have a line of A or B in turn,
// 4 bytes each (8 if they are f64), then go on in the next register; of a row of D and C they have
// two elements each. Matrices of 16 rows have row g + 8 beside that.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "aligned.h"
#include "matrices.h"

namespace gpusim {
namespace {

constexpr int kColumns = 8;  // N of all shapes
constexpr int kGroup = 8;    // rows, or columns of B, that have four lanes each

// Modifiers.
constexpr std::int64_t kRowBits = 0x1f;
constexpr int kKShift = 5;  // 6 bits
constexpr int kTypeAShift = 11;
constexpr int kTypeBShift = 15;
constexpr int kResultShift = 19;              // 2 bits
constexpr std::int64_t kSaturates = 1 << 21;  // sums of integers

// What an mma says. `element`: bytes of one of A or B; `in_d`: elements of D in a register.
struct Mma {
  Mma(const Op& op, int register_bytes, int element, int in_d)
      : rows(static_cast<int>(op.modifiers & kRowBits)),
        ks(static_cast<int>(op.modifiers >> kKShift & 0x3f)),
        halves(rows / kGroup),
        each(register_bytes / element),
        together(in_d),
        a_at(rows * kColumns / kLanes / in_d),
        b_at(a_at + (rows * ks / kLanes / each)),
        c_at(b_at + (kColumns * ks / kLanes / each)),
        bytes(element) {}
  int rows, ks;
  int halves;            // groups of rows
  int each;              // elements of A or B in a register
  int together;          // elements of D in a register
  int a_at, b_at, c_at;  // operands
  int bytes;             // of an element of A or B

  [[nodiscard]] int row(int lane, int i) const { return lane / 4 + kGroup * (i * together / 2); }
  [[nodiscard]] int column(int lane, int i) const { return lane % 4 * 2 + i * together % 2; }
};

// Eight rows of A or columns of B along K, from every `apart`-th register. `widen`: a register and
// which of its elements, to the element.
template <class Register, class Value, class Widen>
void read_lines(Step& step, const Mma& mma, int first, int apart, Widen widen, Value* lines) {
  for (int k = 0, i = first; k < mma.ks; k += 4 * mma.each, i += apart) {
    const auto* const registers = step.reg<Register>(i);
    for (int lane = 0; lane < kLanes; ++lane) {
      Value* const line = lines + (static_cast<std::ptrdiff_t>(lane / 4) * mma.ks);
      for (int j = 0; j < mma.each; ++j) {
        line[k + (lane % 4 * mma.each) + j] = widen(registers[lane], j);
      }
    }
  }
}

template <class Register, class Value, class Widen>
std::vector<Value> read_a(Step& step, const Mma& mma, Widen widen) {
  std::vector<Value> a(static_cast<std::size_t>(mma.rows) * mma.ks);
  for (int half = 0; half < mma.halves; ++half) {
    read_lines<Register>(step, mma, mma.a_at + half, mma.halves, widen,
                         a.data() + (static_cast<std::ptrdiff_t>(half) * kGroup * mma.ks));
  }
  return a;
}

template <class Register, class Value, class Widen>
std::vector<Value> read_b(Step& step, const Mma& mma, Widen widen) {
  std::vector<Value> b(static_cast<std::size_t>(kColumns) * mma.ks);
  read_lines<Register>(step, mma, mma.b_at, 1, widen, b.data());
  return b;
}

// D is written when all of C has been read, which may be in the same registers.
template <class Register, class Sum>
void write_d(Step& step, const Mma& mma, Sum sum) {
  std::array<std::array<Register, kLanes>, 4> d;
  for (int i = 0; i < mma.a_at; ++i) {
    const auto* const c = step.reg<Register>(mma.c_at + i);
    for (int lane = 0; lane < kLanes; ++lane) {
      d.at(i).at(lane) = sum(c[lane], mma.row(lane, i), mma.column(lane, i));
    }
  }
  for (int i = 0; i < mma.a_at; ++i) std::ranges::copy(d.at(i), step.reg<Register>(i));
}

void count(Step& step, const Mma& mma, const char* type) {
  const auto products = std::uint64_t{kColumns} * static_cast<unsigned>(mma.rows * mma.ks);
  step.warp.machine().counters.multiplied(std::string("mma.") + type, 1, 2 * products);
  if (step.warp.agent.record == nullptr) return;
  const EngineWork work{.engine = Engine::kTensorCores,
                        .amount = products * static_cast<std::uint64_t>(mma.bytes) / kOperandBytes};
  Recorder& recorder = *step.warp.agent.record->recorder;
  const std::span<const Operand> d(step.operands, static_cast<std::size_t>(mma.a_at));
  recorder.fills(step.warp, d, recorder.begin(work));
}

Flow multiply_narrow(Step& step) {
  if (!together(step, "mma")) return Flow::kConverge;
  const auto type_a = static_cast<Element>(step.op.modifiers >> kTypeAShift & 15);
  const auto type_b = static_cast<Element>(step.op.modifiers >> kTypeBShift & 15);
  const auto result = static_cast<Result>(step.op.modifiers >> kResultShift & 3);
  const bool saturates = (step.op.modifiers & kSaturates) != 0;
  const int bytes = element_bytes(type_a);
  const Mma mma(step.op, 4, bytes, result == Result::kF16 ? 2 : 1);
  const auto widen = [bytes](Element type) {
    const std::uint32_t mask = bytes == 4 ? ~0U : (1U << (8 * bytes)) - 1;
    return [=](std::uint32_t word, int j) {
      return element_value(type, word >> (8 * bytes * j) & mask);
    };
  };
  const auto a = read_a<std::uint32_t, float>(step, mma, widen(type_a));
  const auto b = read_b<std::uint32_t, float>(step, mma, widen(type_b));
  std::vector<float> product(static_cast<std::size_t>(mma.rows) * kColumns);
  multiply(a, b, mma.rows, kColumns, mma.ks, product.data());
  write_d<std::uint32_t>(step, mma, [&](std::uint32_t before, int row, int column) {
    return accumulate(result, saturates, before, true, &product[row * kColumns + column]);
  });
  count(step, mma, name_of(type_a));
  return Flow::kNext;
}

// f64: each product is added with one rounding, in the order of K.
Flow multiply_double(Step& step) {
  if (!together(step, "mma")) return Flow::kConverge;
  const Mma mma(step.op, 8, 8, 1);
  const auto same = [](double value, int) { return value; };
  const auto a = read_a<double, double>(step, mma, same);
  const auto b = read_b<double, double>(step, mma, same);
  write_d<double>(step, mma, [&](double sum, int row, int column) {
    for (int k = 0; k < mma.ks; ++k) {
      sum = std::fma(a[row * mma.ks + k], b[column * mma.ks + k], sum);
    }
    return sum;
  });
  count(step, mma, "f64");
  return Flow::kNext;
}

}  // namespace

void register_mma(Registry& registry) {
  registry["mma"] = multiply_narrow;
  registry["mma.f64"] = multiply_double;
}

}  // namespace gpusim
