// SPDX-License-Identifier: MIT
// Kernels that edit tensor maps: tensormap.replace and tensormap.cp_fenceproxy (PTX ISA 9.7.9.26
// and 9.7.13.16). The fields' places are those that tensor_map.h reads.
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "cluster.h"
#include "tensor_map.h"

namespace gpusim {
namespace {

constexpr std::int64_t kShared = 1;         // modifier: the map is in shared memory
constexpr std::int64_t kNarrowAddress = 2;  // its address is a 32-bit register

// In the order of decode/tensor_maps.py.
enum class Field : std::uint8_t {
  kGlobalAddress,
  kRank,
  kBoxDim,
  kGlobalDim,
  kGlobalStride,
  kElementStride,
  kElementType,
  kInterleave,
  kSwizzle,
  kSwizzleAtomicity,
  kFill,
};

using Words = std::array<std::uint32_t, kTensorMapBytes / 4>;

void put(std::uint32_t& word, unsigned shift, unsigned bits, std::uint64_t value) {
  const std::uint32_t mask = bits == 32 ? ~std::uint32_t{0} : (1U << bits) - 1;
  word = (word & ~(mask << shift)) | (static_cast<std::uint32_t>(value) & mask) << shift;
}

[[noreturn]] void refuse(const std::string& what, std::uint64_t value, const char* why) {
  throw Fault("tensor-map",
              "tensormap.replace sets " + what + " to " + std::to_string(value) + ", " + why);
}

void demand(bool right, const char* what, std::uint64_t value, const char* why) {
  if (!right) refuse(what, value, why);
}

void replace_field(Words& words, Field field, std::uint64_t ordinal, std::uint64_t value) {
  switch (field) {
    case Field::kGlobalAddress:
      demand(value % 16 == 0, "the address", value, "which is no multiple of 16");
      words[0] = static_cast<std::uint32_t>(value);
      words[1] = static_cast<std::uint32_t>(value >> 32);
      return;
    case Field::kRank:  // PTX counts as the map does: one less
      demand(value < kMostDimensions, "the rank less one", value, "and the limit is 4");
      return put(words[2], 4, 3, value);
    case Field::kBoxDim:
      demand(value >= 1 && value <= 256, "a box dimension", value, "and it must be 1 to 256");
      if (ordinal == 0) return put(words[13], 24, 8, value - 1);
      return put(words[14], static_cast<unsigned>(8 * (ordinal - 1)), 8, value - 1);
    case Field::kGlobalDim:
      demand(value >= 1, "a dimension", value, "and it must be at least 1");
      return put(words[8 + ordinal], 0, 32, value - 1);
    case Field::kGlobalStride:  // of the dimension after: the innermost has none
      demand(value % 16 == 0, "a stride", value, "which is no multiple of 16");
      put(words[3 + ordinal], 0, 32, value >> 4);
      return put(words[7], static_cast<unsigned>(4 * ordinal), 4, value >> 36);
    case Field::kElementStride:
      return demand(value == 1, "an element stride", value, "and only 1 is supported");
    case Field::kElementType:
      demand(value <= static_cast<std::uint64_t>(TensorMap::Type::kBf16), "the element type", value,
             "and those above 10 are not supported");
      return put(words[2], 7, 4, value);
    case Field::kInterleave:
      return demand(value == 0, "the interleave layout", value, "and only 0 is supported");
    case Field::kSwizzle:
      demand(value <= 3, "the swizzle mode", value, "and those above 3 are not supported");
      return put(words[2], 13, 2, value);
    case Field::kSwizzleAtomicity:
      return demand(value == 0, "the swizzle atomicity", value, "and only 0 is supported");
    case Field::kFill:
      return demand(value == 0, "the fill mode", value, "and only 0, zeros, is supported");
  }
}

std::uint64_t address(Step& step, int operand, int lane) {
  const bool narrow = (step.op.modifiers & kNarrowAddress) != 0;
  const std::uint64_t base =
      narrow ? step.reg<std::uint32_t>(operand)[lane] : step.reg<std::uint64_t>(operand)[lane];
  return base + static_cast<std::uint64_t>(step.offset(operand));
}

// Operands: the map's address, the dimension's number, the value (64 bits).
template <Field kField>
Flow replace(Step& step) {
  step.each_lane([&](int lane) {
    const std::uint64_t at = address(step, 0, lane);
    const std::uint64_t ordinal = step.reg<std::uint32_t>(1)[lane];
    const std::uint64_t dimensions = kField == Field::kGlobalStride ? 4 : kMostDimensions;
    if (ordinal >= dimensions) refuse("dimension", ordinal, "which a tensor map does not have");
    constexpr std::uint32_t kSize = kTensorMapBytes;
    const bool shared = (step.op.modifiers & kShared) != 0 || (at & kSharedWindow) != 0;
    std::byte* memory = nullptr;
    if (shared) {
      const Cluster::Place place = cluster_of(step).place(at);
      memory = place.cta->shared.at(place.offset, kSize, kSize);
      place.cta->shared.demand_written(place.offset, kSize);
      place.cta->shared.wrote(place.offset, kSize);
    } else {
      memory = step.warp.machine().memory.at(at, kSize, 64);
    }
    Words words;
    std::memcpy(words.data(), memory, kSize);
    replace_field(words, kField, ordinal, step.reg<std::uint64_t>(2)[lane]);
    std::memcpy(memory, words.data(), kSize);
  });
  return Flow::kNext;
}

// Operands: to (global), from (shared). The warp copies one map.
Flow copy(Step& step) {
  if ((step.warp.live() & ~step.fragment.mask) != 0) return Flow::kConverge;
  const int lane = step.lane();
  const bool narrow = (step.op.modifiers & kNarrowAddress) != 0;
  const std::uint64_t from =
      (narrow ? step.reg<std::uint32_t>(1)[lane] : step.reg<std::uint64_t>(1)[lane]) +
      static_cast<std::uint64_t>(step.offset(1));
  const std::uint64_t to =
      step.reg<std::uint64_t>(0)[lane] + static_cast<std::uint64_t>(step.offset(0));
  const Cluster::Place place = cluster_of(step).place(from);
  constexpr std::uint32_t kSize = kTensorMapBytes;
  const std::byte* const map = place.cta->shared.at(place.offset, kSize, kSize);
  place.cta->shared.demand_written(place.offset, kSize);
  std::memcpy(step.warp.machine().memory.at(to, kSize, kSize), map, kSize);
  step.warp.machine().counters.global_copied_out += kSize;
  return Flow::kNext;
}

}  // namespace

void register_tensor_map_edits(Registry& registry) {
  registry["tensormap.replace.global_address"] = replace<Field::kGlobalAddress>;
  registry["tensormap.replace.rank"] = replace<Field::kRank>;
  registry["tensormap.replace.box_dim"] = replace<Field::kBoxDim>;
  registry["tensormap.replace.global_dim"] = replace<Field::kGlobalDim>;
  registry["tensormap.replace.global_stride"] = replace<Field::kGlobalStride>;
  registry["tensormap.replace.element_stride"] = replace<Field::kElementStride>;
  registry["tensormap.replace.elemtype"] = replace<Field::kElementType>;
  registry["tensormap.replace.interleave_layout"] = replace<Field::kInterleave>;
  registry["tensormap.replace.swizzle_mode"] = replace<Field::kSwizzle>;
  registry["tensormap.replace.swizzle_atomicity"] = replace<Field::kSwizzleAtomicity>;
  registry["tensormap.replace.fill_mode"] = replace<Field::kFill>;
  registry["tensormap.cp_fenceproxy"] = copy;
}

}  // namespace gpusim
