// SPDX-License-Identifier: MIT
// The hash that names a page's content: chained over the prefix, the same on every machine and in
// every process, since a router compares the hashes of several workers. A fast multiply-fold
// (Wang Yi's wyhash construction); it is no authority: the prefix cache compares tokens.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "ts/types.h"

namespace ts {

using ContentHash = std::uint64_t;

namespace hash_detail {

static_assert(std::endian::native == std::endian::little, "hashes are defined on little-endian");

inline constexpr std::uint64_t kP0 = 0xa0761d6478bd642fULL;
inline constexpr std::uint64_t kP1 = 0xe7037ed1a0b428dbULL;
inline constexpr std::uint64_t kP2 = 0x8ebc6af09c88c6e3ULL;
inline constexpr std::uint64_t kP3 = 0x589965cc75374cc3ULL;

__extension__ using Uint128 = unsigned __int128;

[[nodiscard]] inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
  const Uint128 product = static_cast<Uint128>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

[[nodiscard]] inline std::uint64_t load(const unsigned char* at, std::size_t bytes) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, bytes);
  return word;
}

[[nodiscard]] inline std::uint64_t hash_bytes(std::uint64_t seed, const void* data,
                                              std::size_t size) {
  const auto* at = static_cast<const unsigned char*>(data);
  // Two independent lanes hide the multiplier's latency.
  std::uint64_t lane0 = seed ^ kP0;
  std::uint64_t lane1 = seed ^ kP1;
  std::size_t left = size;
  for (; left >= 32; left -= 32, at += 32) {
    lane0 = fold(load(at, 8) ^ kP1, load(at + 8, 8) ^ lane0);
    lane1 = fold(load(at + 16, 8) ^ kP2, load(at + 24, 8) ^ lane1);
  }
  for (; left >= 8; left -= 8, at += 8) lane0 = fold(load(at, 8) ^ kP3, lane0 ^ kP2);
  if (left > 0) lane1 = fold(load(at, left) ^ kP3, lane1 ^ kP1);
  return fold(lane0 ^ kP3 ^ size, lane1 ^ kP2);
}

}  // namespace hash_detail

[[nodiscard]] inline ContentHash hash_salt(std::string_view salt) {
  return hash_detail::hash_bytes(0x74735f7072656669ULL, salt.data(), salt.size());
}

[[nodiscard]] inline ContentHash hash_page(ContentHash parent, std::span<const Token> tokens) {
  return hash_detail::hash_bytes(parent, tokens.data(), tokens.size_bytes());
}

}  // namespace ts
