// SPDX-License-Identifier: MIT
// A request: what was asked, and the tokens it has so far. It moves from state to state and is
// never copied; what it holds of the device belongs to its state (lifecycle.h).
#pragma once

#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ts/content_hash.h"
#include "ts/forms.h"
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
  Role role = Role::kAggregated;
};

// What every commit of a token touches stands first, in as few cache lines as it takes.
struct alignas(64) Request {
  RequestId id;
  std::vector<Token> tokens;  // prompt, then output
  StopConditions stop;
  std::int32_t cached_tokens = kUnset;  // of the prompt, at first admission
  Forms forms;
  ServiceOrder order;
  SaltRef salt;
  std::vector<ContentHash> page_names = {};  // of its full pages; tokens never change, nor do these
  std::vector<std::byte> params;             // opaque, for the execution plane
  std::int32_t overtaken = 0;                // by later requests, while this one did not fit
  Role role = Role::kAggregated;
  bool counts_on_load = false;  // cached_tokens has some that the transfer under way loads
  double first_token_at = 0;    // on the clock of TpsFloor
  double paid_until = 0;        // on that clock: until when its tokens keep it at the floor
  std::int32_t held_until = 0;  // tokens before this were counted when the floor put them off

  static constexpr std::int32_t kUnset = -1;

  [[nodiscard]] std::int32_t length() const { return static_cast<std::int32_t>(tokens.size()); }
  [[nodiscard]] std::int32_t prompt_length() const { return forms.prompt_length; }
};

// Requests stand side by side in few memory pages, since every step touches all the running ones,
// and the memory of ended requests' tokens is used again: fresh memory costs a page fault each
// 4 KiB, which took half of the time that admitting a long prompt takes. Must outlive its requests.
class RequestPool {
 public:
  struct GiveBack {
    RequestPool* pool;
    void operator()(Request* request) const {
      pool->keep(std::move(request->tokens));
      std::destroy_at(request);
      pool->memory_.deallocate(request, sizeof(Request), alignof(Request));
    }
  };
  using Ptr = std::unique_ptr<Request, GiveBack>;

  RequestPool() { spare_.reserve(kSpares); }

  [[nodiscard]] Ptr make(Request&& request) {
    void* at = memory_.allocate(sizeof(Request), alignof(Request));
    return {::new (at) Request(std::move(request)), GiveBack{this}};
  }

  // Empty, with room for `capacity` tokens.
  [[nodiscard]] std::vector<Token> token_memory(std::size_t capacity) {
    std::vector<Token> tokens;
    if (!spare_.empty()) {
      tokens = std::move(spare_.back());
      spare_.pop_back();
      spare_tokens_ -= tokens.capacity();
    }
    // Rounded up, so that it suits other lengths too; what is not written is not resident.
    if (tokens.capacity() < capacity) tokens.reserve(std::bit_ceil(capacity));
    return tokens;
  }

 private:
  static constexpr std::size_t kSpares = 256;
  static constexpr std::size_t kSpareTokens = 1 << 24;

  void keep(std::vector<Token>&& tokens) {
    if (spare_.size() == kSpares || spare_tokens_ + tokens.capacity() > kSpareTokens) return;
    tokens.clear();
    spare_tokens_ += tokens.capacity();
    spare_.push_back(std::move(tokens));
  }

  std::pmr::unsynchronized_pool_resource memory_;
  std::vector<std::vector<Token>> spare_;
  std::size_t spare_tokens_ = 0;  // capacity of all of spare_
};

using RequestPtr = RequestPool::Ptr;

}  // namespace ts
