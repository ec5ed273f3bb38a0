// SPDX-License-Identifier: MIT
#include "ts/plan.h"

#include <algorithm>
#include <numeric>

namespace ts {
namespace {

// Token history of a step's admissions. One admission always fits; a burst of long, cached
// prompts is spread over steps instead of growing the buffer.
std::size_t history_capacity(const SchedulerConfig& config) {
  constexpr std::int64_t kGenerous = 1 << 24;
  const auto all = static_cast<std::int64_t>(config.max_num_seqs) * config.max_model_len;
  return static_cast<std::size_t>(
      std::max<std::int64_t>(config.max_model_len, std::min(all, kGenerous)));
}

std::size_t block_table_entries(const SchedulerConfig& config) {
  return static_cast<std::size_t>(config.max_num_seqs) *
         static_cast<std::size_t>(pages_per_sequence(config));
}

}  // namespace

Plan::Plan(const SchedulerConfig& config)
    : row_slot(static_cast<std::size_t>(config.max_num_seqs)),
      row_start(row_slot.capacity()),
      row_tokens(row_slot.capacity()),
      row_samples(row_slot.capacity()),
      admitted_slot(row_slot.capacity()),
      admitted_request(row_slot.capacity()),
      admitted_offset(row_slot.capacity() + 1),
      admitted_prompt_tokens(row_slot.capacity()),
      admitted_tokens(history_capacity(config)),
      admitted_params(row_slot.capacity() * static_cast<std::size_t>(config.params_size)),
      page_patch(block_table_entries(config)),
      transfer_id((2 * row_slot.capacity()) + 2),
      transfer_request(transfer_id.capacity()),
      transfer_kind(transfer_id.capacity()),
      transfer_offset(transfer_id.capacity() + 1),
      transfer_device_page((2 * static_cast<std::size_t>(config.num_pages)) +
                           block_table_entries(config)),
      transfer_host_page(transfer_device_page.capacity()) {
  for (std::size_t i = 0; i < config.cache_groups.size(); ++i) {
    group_page_patch.emplace_back(page_patch.capacity());
  }
  clear();
}

void Plan::clear() {
  num_absorbed_rows = 0;
  num_tokens = 0;
  row_slot.clear();
  row_start.clear();
  row_tokens.clear();
  row_samples.clear();
  admitted_slot.clear();
  admitted_request.clear();
  admitted_offset.clear();
  admitted_offset.push(0);
  admitted_prompt_tokens.clear();
  admitted_tokens.clear();
  admitted_params.clear();
  page_patch.clear();
  for (auto& patch : group_page_patch) patch.clear();
  transfer_id.clear();
  transfer_request.clear();
  transfer_kind.clear();
  transfer_offset.clear();
  transfer_offset.push(0);
  transfer_device_page.clear();
  transfer_host_page.clear();
}

std::size_t Plan::arena_words() const {
  return kArenaHeader + (5 * row_slot.capacity()) + admitted_offset.capacity() +
         admitted_tokens.capacity() + (3 * page_patch.capacity());
}

std::size_t Plan::pack(std::span<std::int32_t> arena) const {
  TS_ASSERT(arena.size() >= arena_words());
  std::size_t offset = 8;  // of the header's word that says where the next array begins
  std::size_t end = kArenaHeader;
  const auto append = [&](const auto* values, std::size_t count) {
    arena[offset++] = static_cast<std::int32_t>(end);
    std::copy(values, values + count, arena.data() + end);
    end += count;
  };
  append(row_slot.data(), row_slot.size());
  append(row_start.data(), row_start.size());
  append(row_tokens.data(), row_tokens.size());
  append(row_samples.data(), row_samples.size());
  append(admitted_slot.data(), admitted_slot.size());
  append(admitted_offset.data(), admitted_offset.size());
  append(admitted_tokens.data(), admitted_tokens.size());
  static_assert(sizeof(PagePatch) == 3 * sizeof(std::int32_t));
  append(reinterpret_cast<const std::int32_t*>(page_patch.data()), 3 * page_patch.size());

  const auto words = [](std::size_t count) { return static_cast<std::int32_t>(count); };
  const std::int32_t* tokens = row_tokens.data();
  const std::uint8_t* samples = row_samples.data();
  arena[0] = words(end);
  arena[1] = words(row_slot.size());
  arena[2] = num_absorbed_rows;
  arena[3] = num_tokens;
  arena[4] = std::accumulate(tokens, tokens + num_absorbed_rows, 0);
  arena[5] = words(row_samples.size()) -
             words(static_cast<std::size_t>(std::count(samples, samples + row_samples.size(), 0)));
  arena[6] = words(admitted_slot.size());
  arena[7] = words(page_patch.size());
  return end;
}

Output::Output(const SchedulerConfig& config)
    : request(static_cast<std::size_t>(config.max_num_seqs) *
              static_cast<std::size_t>(1 + config.num_speculative_tokens)),
      token(request.capacity()),
      row(request.capacity()),
      finish(request.capacity()),
      cached_tokens(request.capacity()) {}

void Output::clear() {
  request.clear();
  token.clear();
  row.clear();
  finish.clear();
  cached_tokens.clear();
}

}  // namespace ts
