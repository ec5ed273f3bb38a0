// SPDX-License-Identifier: MIT
#include "instruction_descriptor.h"

#include <array>
#include <string>

namespace gpusim {
namespace {

constexpr std::array<const char*, 7> kKindNames{"f16",      "tf32", "f8f6f4",  "i8",
                                                "mxf8f6f4", "mxf4", "mxf4nvf4"};

[[noreturn]] void refuse(const MmaForm& form, std::uint32_t bits, const std::string& why) {
  throw Fault("descriptor", "the instruction descriptor " + hex(bits) + " of kind " +
                                kKindNames.at(static_cast<std::size_t>(form.kind)) + " " + why);
}

// An instruction descriptor's bits [first, first + count).
struct Bits {
  std::uint32_t all;
  [[nodiscard]] std::uint32_t field(int first, int count) const {
    return all >> first & ((1U << count) - 1);
  }
  [[nodiscard]] bool flag(int at) const { return field(at, 1) != 0; }
};

// Bits that PTX ISA 9.7.16.4.2, tables 42 to 44, reserve.
std::uint32_t reserved(Kind kind) {
  switch (kind) {
    case Kind::kMxf8f6f4:
      return 0x8700004B;
    case Kind::kMxf4:
    case Kind::kMxf4nvf4:
      return 0x0701904B;  // no transposes, and b's type has two bits
    case Kind::kI8:
      return 0x20806040;  // nothing is negated
    default:
      return 0x20800048;
  }
}

Element element(const MmaForm& form, std::uint32_t bits, std::uint32_t type) {
  switch (form.kind) {
    case Kind::kF16:
      if (type <= 1) return type == 0 ? Element::kF16 : Element::kBf16;
      break;
    case Kind::kTf32:
      if (type == 2) return Element::kTf32;
      break;
    case Kind::kI8:
      if (type <= 1) return type == 0 ? Element::kU8 : Element::kS8;
      break;
    case Kind::kMxf4:
    case Kind::kMxf4nvf4:
      if (type == 1) return Element::kE2m1Pairs;
      break;
    case Kind::kF8f6f4:
    case Kind::kMxf8f6f4:
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
      break;
  }
  refuse(form, bits, "names element type " + std::to_string(type) + ", which that kind has not");
}

Result result(const MmaForm& form, std::uint32_t bits, std::uint32_t type) {
  if (is_block_scaled(form.kind)) return Result::kF32;
  if (form.kind == Kind::kI8) {
    if (type == 2) return Result::kS32;
  } else if (type == 1) {
    return Result::kF32;
  } else if (type == 0 && form.kind != Kind::kTf32) {
    return Result::kF16;
  }
  refuse(form, bits, "names result type " + std::to_string(type) + ", which that kind has not");
}

bool has_rows(const MmaForm& form, int m) {
  if (form.weight_stationary) return m == 32 || m == 64 || m == 128;
  if (!form.pair) return m == 128 || (m == 64 && !is_block_scaled(form.kind));
  return m == 256 || (m == 128 && !(form.sparse && is_block_scaled(form.kind)));
}

bool has_columns(const MmaForm& form, int n) {
  if (n == 0 || n > 256) return false;
  if (form.weight_stationary) return n == 64 || n == 128 || (n == 256 && !form.sparse);
  if (form.kind == Kind::kI8) return n % (form.pair ? 32 : n > 32 ? 16 : 8) == 0;
  return n % (form.pair ? 16 : 8) == 0;
}

int dense_k(Kind kind, bool longer) {
  switch (kind) {
    case Kind::kTf32:
      return 8;
    case Kind::kF16:
      return 16;
    case Kind::kMxf4:
    case Kind::kMxf4nvf4:
      return longer ? 96 : 64;
    default:
      return 32;
  }
}

// PTX ISA 9.7.16.10.7.1, tables 54 and 55: which block goes with which scale factors; and of a
// word's four bytes, which may be the first.
void check_scales(const MmaForm& form, std::uint32_t bits, const MmaShape& shape) {
  const bool fits = form.kind == Kind::kMxf4nvf4
                        ? form.block == 16 || shape.scale == ScaleType::kUe8m0
                        : form.block == 32 && shape.scale == ScaleType::kUe8m0;
  if (!fits) {
    refuse(form, bits,
           "has scale factors of a type that does not go with blocks of " +
               std::to_string(form.block));
  }
  if (form.counted && shape.blocks % 3 == 0) {
    refuse(form, bits,
           "has K = 96, for which the instruction must name the block: .block16, .block32");
  }
  const int blocks = shape.blocks;
  const int step = blocks == 1 || blocks == 3 ? 1 : blocks == 4 ? 4 : 2;
  for (const int id : {shape.a_scale, shape.b_scale}) {
    if (id % step != 0) {
      refuse(form, bits,
             "has the scale factor id " + std::to_string(id) + "; with " + std::to_string(blocks) +
                 " scale factors in a row it is a multiple of " + std::to_string(step));
    }
  }
}

}  // namespace

MmaShape decode_shape(const MmaForm& form, std::uint32_t descriptor) {
  const Bits bits{descriptor};
  const bool scaled = is_block_scaled(form.kind);
  const bool packed = form.kind == Kind::kMxf4 || form.kind == Kind::kMxf4nvf4;
  if ((descriptor & reserved(form.kind)) != 0) {
    refuse(form, descriptor, "sets reserved bits: " + hex(descriptor & reserved(form.kind)));
  }
  if (bits.flag(2) != form.sparse) {
    refuse(form, descriptor,
           form.sparse ? "is that of a dense A, but the instruction is .sp"
                       : "is that of a sparse A, but the instruction is not .sp");
  }
  const int k = dense_k(form.kind, packed && bits.flag(31));
  MmaShape shape{
      .m = static_cast<int>(bits.field(24, 5)) << 4,
      .n = static_cast<int>(bits.field(17, 6)) << 3,
      .k = form.sparse ? 2 * k : k,
      .a = element(form, descriptor, bits.field(7, 3)),
      .b = element(form, descriptor, bits.field(10, 3)),
      .result = result(form, descriptor, bits.field(4, 2)),
      .saturates = form.kind == Kind::kI8 && bits.flag(3),
      .a_negated = bits.flag(13),
      .b_negated = bits.flag(14),
      .a_mn_major = bits.flag(15),
      .b_mn_major = bits.flag(16),
      .most_shift = scaled || bits.field(30, 2) == 0 ? 0 : 4 << bits.field(30, 2),
      .sparsity = scaled ? 0 : static_cast<int>(bits.field(0, 2)),
      .scale = bits.flag(23) ? ScaleType::kUe8m0 : ScaleType::kUe4m3,
      .a_scale = scaled ? static_cast<int>(bits.field(29, 2)) : 0,
      .b_scale = scaled ? static_cast<int>(bits.field(4, 2)) : 0,
      .blocks = scaled ? k / form.block : 1,
  };
  if (scaled) shape.m = static_cast<int>(bits.field(27, 2)) << 7;
  if (!has_rows(form, shape.m) || !has_columns(form, shape.n)) {
    refuse(form, descriptor,
           "has the shape " + std::to_string(shape.m) + " x " + std::to_string(shape.n) +
               ", which that kind has not in this form");
  }
  if (shape.k == 192) refuse(form, descriptor, "is sparse with K = 96, which must be dense");
  if (scaled) check_scales(form, descriptor, shape);
  return shape;
}

}  // namespace gpusim
