// SPDX-License-Identifier: MIT
// When a request's output ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "ts/types.h"

namespace ts {

class StopConditions {
 public:
  // `max_length` and `min_length` count prompt and output together.
  StopConditions(std::span<const Token> stop_tokens, std::int32_t min_length,
                 std::int32_t max_length)
      : min_length_(min_length),
        max_length_(max_length),
        stop_tokens_(stop_tokens.begin(), stop_tokens.end()) {
    std::ranges::sort(stop_tokens_);
  }

  // Asked once for every sampled token, when it is the last of `length` tokens.
  [[nodiscard]] FinishReason after(Token token, std::int32_t length) const {
    if (length >= min_length_ && std::ranges::binary_search(stop_tokens_, token)) {
      return FinishReason::kStop;
    }
    return length >= max_length_ ? FinishReason::kLength : FinishReason::kNone;
  }

  [[nodiscard]] std::int32_t max_length() const { return max_length_; }

 private:
  std::int32_t min_length_;
  std::int32_t max_length_;
  std::vector<Token> stop_tokens_;  // sorted
};

}  // namespace ts
