// SPDX-License-Identifier: MIT
// The scheduler's elementary words.
#pragma once

#include <cstdint>

namespace ts {

using Token = std::int32_t;
using PageId = std::int32_t;
using SlotId = std::int32_t;
using BlockId = std::int32_t;  // content of one page: its tokens behind those of its ancestors
using RequestId = std::uint64_t;

inline constexpr PageId kNoPage = -1;
inline constexpr SlotId kNoSlot = -1;
inline constexpr BlockId kNoBlock = -1;
inline constexpr Token kNoToken = -1;  // of a row whose next token could not be sampled

// Why a request's output ended, as reported in Output::finish.
enum class FinishReason : std::uint8_t {
  kNone = 0,    // still running
  kStop = 1,    // an eos or stop token was sampled
  kLength = 2,  // max_tokens, or the context limit
  kFailed = 3,  // its next token could not be sampled
};

// Which part of a request is computed here (disaggregation of prefill and decode).
enum class Role : std::uint8_t {
  kAggregated = 0,
  kPrefill = 1,  // the prompt and the first token; then its KV is sent to a peer
  kDecode = 2,   // the KV of all but the prompt's last token is received from a peer
};

[[nodiscard]] constexpr std::int32_t pages_for(std::int64_t tokens, std::int32_t page_size) {
  return static_cast<std::int32_t>((tokens + page_size - 1) / page_size);
}

}  // namespace ts
