// SPDX-License-Identifier: MIT
#include "ts/config.h"

#include <stdexcept>
#include <string>

#include "ts/types.h"

namespace ts {
namespace {

// Keeps every product of two sizes (table entries, byte counts) far inside 64 bits, and every
// token count inside 32.
constexpr std::int32_t kLargest = 1 << 28;
constexpr double kHighestFloor = 1e6;
constexpr double kLongestTimeout = 1e6;

void demand_range(const char* name, std::int32_t value, std::int32_t low, std::int32_t high) {
  if (value >= low && value <= high) return;
  throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                              "; it must be between " + std::to_string(low) + " and " +
                              std::to_string(high));
}

void validate_groups(const SchedulerConfig& config) {
  constexpr std::size_t kMostGroups = 7;
  if (config.cache_groups.empty()) return;
  if (config.cache_groups.size() > kMostGroups) {
    throw std::invalid_argument("cache_groups has " + std::to_string(config.cache_groups.size()) +
                                " entries; there may be at most " + std::to_string(kMostGroups));
  }
  if (config.num_host_pages > 0) {
    throw std::invalid_argument("num_host_pages is " + std::to_string(config.num_host_pages) +
                                ", but the host tier holds full-attention pages only; it must be 0 "
                                "with cache_groups");
  }
  for (std::size_t i = 0; i < config.cache_groups.size(); ++i) {
    const CacheGroup& group = config.cache_groups[i];
    const std::string name = "cache_groups[" + std::to_string(i) + "]";
    const bool recurrent = group.kind == CacheGroupKind::kRecurrent;
    demand_range((name + ".window").c_str(), group.window, recurrent ? 0 : 1,
                 recurrent ? 0 : kLargest);
    demand_range((name + ".num_pages").c_str(), group.num_pages,
                 group.least_pages(config.page_size), kLargest);
    if (recurrent && config.num_speculative_tokens > 0) {
      throw std::invalid_argument("num_speculative_tokens is " +
                                  std::to_string(config.num_speculative_tokens) + ", but " + name +
                                  " is recurrent, and a rejected draft cannot be taken out of its "
                                  "state; it must be 0");
    }
  }
}

}  // namespace

void validate(const SchedulerConfig& config) {
  demand_range("page_size", config.page_size, 1, 1 << 16);
  demand_range("num_pages", config.num_pages, 1, kLargest);
  demand_range("max_num_seqs", config.max_num_seqs, 1, 1 << 16);
  demand_range("max_model_len", config.max_model_len, 2, kLargest);
  demand_range("max_num_batched_tokens", config.max_num_batched_tokens, 1, kLargest);
  demand_range("chunked_prefill_size", config.chunked_prefill_size, 1, kLargest);
  demand_range("vocab_size", config.vocab_size, 1, INT32_MAX);
  demand_range("absorb_from", config.absorb_from, 0, INT32_MAX);
  demand_range("params_size", config.params_size, 0, 1 << 20);
  demand_range("dp_rank", config.dp_rank, 0, INT32_MAX);
  demand_range("max_overtakes", config.max_overtakes, 0, INT32_MAX);
  demand_range("overlap_depth", config.overlap_depth, 0, 1);
  demand_range("num_speculative_tokens", config.num_speculative_tokens, 0, 63);
  if (!(config.min_tps_per_user >= 0) || config.min_tps_per_user > kHighestFloor) {
    throw std::invalid_argument("min_tps_per_user is " + std::to_string(config.min_tps_per_user) +
                                "; it must be a rate in tokens/s between 0 (no floor) and " +
                                std::to_string(static_cast<std::int64_t>(kHighestFloor)));
  }
  if (!(config.peer_timeout >= 0) || config.peer_timeout > kLongestTimeout) {
    throw std::invalid_argument("peer_timeout is " + std::to_string(config.peer_timeout) +
                                "; it must be a time in seconds between 0 (no timeout) and " +
                                std::to_string(static_cast<std::int64_t>(kLongestTimeout)));
  }
  const std::int64_t decode_tokens =
      static_cast<std::int64_t>(config.max_num_seqs) * (1 + config.num_speculative_tokens);
  if (config.max_num_batched_tokens < decode_tokens) {
    const std::string with_drafts =
        config.num_speculative_tokens == 0
            ? ""
            : ", each with " + std::to_string(config.num_speculative_tokens) + " draft tokens";
    throw std::invalid_argument(
        "max_num_batched_tokens is " + std::to_string(config.max_num_batched_tokens) +
        ", but max_num_seqs lets " + std::to_string(config.max_num_seqs) +
        " sequences decode in one step" + with_drafts + "; raise the first or lower the second");
  }
  demand_range("num_host_pages", config.num_host_pages, 0, kLargest);
  validate_groups(config);
  if (static_cast<std::int64_t>(config.num_pages) * config.page_size > INT32_MAX) {
    throw std::invalid_argument("num_pages is " + std::to_string(config.num_pages) +
                                ", but pages of " + std::to_string(config.page_size) +
                                " tokens make at most " +
                                std::to_string(INT32_MAX / config.page_size) + " pages");
  }
}

std::int32_t pages_per_sequence(const SchedulerConfig& config) {
  return pages_for(config.max_model_len, config.page_size);
}

}  // namespace ts
