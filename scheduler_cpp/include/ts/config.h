// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <vector>

#include "ts/cache_group.h"

namespace ts {

struct SchedulerConfig {
  std::int32_t page_size = 16;     // tokens per page
  std::int32_t num_pages = 1024;   // pages of the device's KV pool
  std::int32_t max_num_seqs = 64;  // slots: sequences that run together
  std::int32_t max_model_len = 4096;
  std::int32_t max_num_batched_tokens = 2048;  // tokens of one step
  std::int32_t chunked_prefill_size = 512;     // tokens of one row of a step
  std::int32_t vocab_size = 32000;
  // Prompt tokens at positions before this one are computed in the expanded form, all others in the
  // absorbed one (forms.h).
  std::int32_t absorb_from = INT32_MAX;
  bool enable_prefix_caching = true;
  bool enable_kv_events = true;
  std::int32_t params_size = 0;  // bytes of the opaque record a request may carry
  std::int32_t dp_rank = 0;      // names this replica in KV events
  // A waiting request that does not fit may be overtaken this often by ones that do.
  std::int32_t max_overtakes = 64;
  std::int32_t overlap_depth = 0;           // steps that may be in flight when one is planned
  std::int32_t num_speculative_tokens = 0;  // draft tokens that a decode row may carry
  double min_tps_per_user = 0;              // floor under every decoding user; 0: none
  double peer_timeout = 0;          // seconds until a transfer with a peer is overdue; 0: never
  std::int32_t num_host_pages = 0;  // of the tier behind the device; 0: there is none
  std::vector<CacheGroup> cache_groups = {};  // beside the full-attention one, whose pages the
                                              // numbers above count

  bool operator==(const SchedulerConfig&) const = default;
};

// Throws std::invalid_argument with one sentence if the values contradict each other.
void validate(const SchedulerConfig& config);

// Columns of the block table.
[[nodiscard]] std::int32_t pages_per_sequence(const SchedulerConfig& config);

}  // namespace ts
