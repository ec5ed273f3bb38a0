// SPDX-License-Identifier: MIT
// The few msgpack forms that KV events need
// (https://github.com/msgpack/msgpack/blob/master/spec.md).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

namespace ts {

// Writes to memory that the caller has made large enough: kMaxInteger bytes for each number,
// kMaxHeader + size for each string, kMaxHeader for an array or a map.
class MsgpackWriter {
 public:
  static constexpr std::size_t kMaxInteger = 9;
  static constexpr std::size_t kMaxHeader = 5;
  static constexpr std::size_t kSlack = 3;

  explicit MsgpackWriter(char* at) : at_(at) {}

  // The same as integer() for each, and up to kSlack bytes behind them are overwritten.
  void integers(std::span<const std::int32_t> values) {
    char* at = at_;  // a local: what is stored through a char* might be at_ itself
    for (const std::int32_t value : values) {
      const auto bits = static_cast<std::uint32_t>(value);
      if (bits < 128) {
        *at++ = static_cast<char>(bits);
      } else {
        const std::uint64_t word = 0xd2 | static_cast<std::uint64_t>(swapped(bits)) << 8;
        std::memcpy(at, &word, sizeof(word));
        at += 5;
      }
    }
    at_ = at;
  }

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

  // What is msgpack already.
  void raw(std::string_view encoded) {
    std::memcpy(at_, encoded.data(), encoded.size());
    at_ += encoded.size();
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

  static std::uint32_t swapped(std::uint32_t value) {
    return value >> 24 | (value >> 8 & 0xff00) | (value << 8 & 0xff0000) | value << 24;
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

// Encoded integers, in memory that grows and is used again.
class MsgpackBuffer {
 public:
  void append(std::span<const std::int32_t> values) {
    const std::size_t most = size_ + (values.size() * MsgpackWriter::kMaxHeader);
    if (most + MsgpackWriter::kSlack > capacity_) grow(most + MsgpackWriter::kSlack);
    MsgpackWriter out(data_.get() + size_);
    out.integers(values);
    size_ = static_cast<std::size_t>(out.position() - data_.get());
  }
  void clear() { size_ = 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::string_view bytes(std::size_t begin, std::size_t end) const {
    return {data_.get() + begin, end - begin};
  }

 private:
  void grow(std::size_t least) {
    const std::size_t capacity = least + capacity_;
    auto larger = std::make_unique_for_overwrite<char[]>(capacity);
    if (size_ > 0) std::memcpy(larger.get(), data_.get(), size_);
    data_ = std::move(larger);
    capacity_ = capacity;
  }

  std::unique_ptr<char[]> data_;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
};

}  // namespace ts
