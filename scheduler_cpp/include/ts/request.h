// SPDX-License-Identifier: MIT
// A request: what was asked, and the tokens it has so far. It moves from state to state and is
// never copied; what it holds of the device belongs to its state (lifecycle.h).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ts/salt.h"
#include "ts/stop.h"
#include "ts/types.h"

namespace ts {

// The order in which requests are served: larger priority first, then arrival. It stays with a
// request for life, so one that was retracted takes its old place again.
struct ServiceOrder {
  std::int64_t negated_priority;
  std::uint64_t arrival;
  auto operator<=>(const ServiceOrder&) const = default;
};

// What `submit` takes; spans are read during the call only.
struct Submission {
  RequestId id = 0;
  std::span<const Token> prompt;
  std::int64_t max_tokens = 0;
  std::int64_t min_tokens = 0;
  std::span<const Token> eos_token_ids;
  std::span<const Token> stop_token_ids;
  bool ignore_eos = false;
  std::string_view cache_salt;
  std::int64_t priority = 0;
  std::span<const std::byte> params;
};

struct Request {
  RequestId id;
  ServiceOrder order;
  std::vector<Token> tokens;  // prompt, then output
  std::int32_t prompt_length;
  StopConditions stop;
  SaltRef salt;
  std::vector<std::byte> params;        // opaque, for the execution plane
  std::int32_t cached_tokens = kUnset;  // of the prompt, at first admission
  std::int32_t overtaken = 0;           // by later requests, while this one did not fit

  static constexpr std::int32_t kUnset = -1;

  [[nodiscard]] std::int32_t length() const { return static_cast<std::int32_t>(tokens.size()); }
};

using RequestPtr = std::unique_ptr<Request>;

}  // namespace ts
