// SPDX-License-Identifier: MIT
// The few msgpack forms that KV events need
// (https://github.com/msgpack/msgpack/blob/master/spec.md).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace ts {

// Writes to memory that the caller has made large enough: kMaxInteger bytes for each number,
// kMaxHeader + size for each string, kMaxHeader for an array or a map.
class MsgpackWriter {
 public:
  static constexpr std::size_t kMaxInteger = 9;
  static constexpr std::size_t kMaxHeader = 5;

  explicit MsgpackWriter(char* at) : at_(at) {}

  [[nodiscard]] char* position() const { return at_; }

  void array(std::size_t size) { header(size, 0x90, 15, 0xdc, 0xdd); }
  void map(std::size_t size) { header(size, 0x80, 15, 0xde, 0xdf); }
  void nil() { byte(0xc0); }

  void string(std::string_view text) {
    if (text.size() < 32) {
      byte(static_cast<std::uint8_t>(0xa0 | text.size()));
    } else {
      byte(0xdb);
      big_endian(static_cast<std::uint32_t>(text.size()));
    }
    std::memcpy(at_, text.data(), text.size());
    at_ += text.size();
  }

  void integer(std::int64_t value) {
    if (value >= 0 && value < 128) {
      byte(static_cast<std::uint8_t>(value));
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
      byte(0xd2);
      big_endian(static_cast<std::uint32_t>(value));
    } else {
      byte(0xd3);
      big_endian(static_cast<std::uint64_t>(value));
    }
  }

  void real(double value) {
    byte(0xcb);
    big_endian(std::bit_cast<std::uint64_t>(value));
  }

 private:
  void byte(std::uint8_t value) { *at_++ = static_cast<char>(value); }

  template <class Unsigned>
  void big_endian(Unsigned value) {
    for (std::size_t i = 0; i < sizeof(Unsigned); ++i) {
      at_[i] = static_cast<char>(value >> (8 * (sizeof(Unsigned) - 1 - i)));
    }
    at_ += sizeof(Unsigned);
  }

  void header(std::size_t size, unsigned fixed, std::size_t fixed_limit, std::uint8_t with16,
              std::uint8_t with32) {
    if (size <= fixed_limit) {
      byte(static_cast<std::uint8_t>(fixed | size));
    } else if (size <= 0xffff) {
      byte(with16);
      big_endian(static_cast<std::uint16_t>(size));
    } else {
      byte(with32);
      big_endian(static_cast<std::uint32_t>(size));
    }
  }

  char* at_;
};

}  // namespace ts
