// SPDX-License-Identifier: MIT
// A device that executes plans on tables and "KV": each entry is a token and its position, and the
// token sampled is a hash of the whole history read back through the block table. A page mix-up
// changes the output, which `next_token` on the plain history gives away.
#pragma once

#include <stdexcept>
#include <vector>

#include "ts/content_hash.h"
#include "ts/plan.h"

namespace spec {

[[nodiscard]] inline ts::Token next_token(const std::vector<ts::Token>& history,
                                          std::int32_t vocab_size) {
  return static_cast<ts::Token>(ts::hash_page(42, history) %
                                static_cast<std::uint64_t>(vocab_size));
}

class Device {
 public:
  explicit Device(const ts::SchedulerConfig& config)
      : config_(config),
        tokens_(at(config.max_num_seqs), std::vector<ts::Token>(at(config.max_model_len), -1)),
        block_table_(at(config.max_num_seqs),
                     std::vector<ts::PageId>(at(ts::pages_per_sequence(config)), -1)),
        kv_(at(config.num_pages) * at(config.page_size)) {}

  [[nodiscard]] std::vector<ts::Token> execute(const ts::Plan& plan) {
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      auto& row = tokens_[at(plan.admitted_slot[i])];
      for (auto& page : block_table_[at(plan.admitted_slot[i])]) page = -1;
      std::copy(plan.admitted_tokens.data() + plan.admitted_offset[i],
                plan.admitted_tokens.data() + plan.admitted_offset[i + 1], row.begin());
    }
    for (std::size_t i = 0; i < plan.page_patch.size(); ++i) {
      const ts::PagePatch& patch = plan.page_patch[i];
      block_table_[at(patch.slot)][at(patch.column)] = patch.page;
    }
    std::vector<ts::Token> sampled;
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
      const std::int32_t slot = plan.row_slot[i];
      const std::int32_t end = plan.row_start[i] + plan.row_tokens[i];
      for (std::int32_t position = plan.row_start[i]; position < end; ++position) {
        entry(slot, position) = {tokens_[at(slot)][at(position)], position};
      }
      if (plan.row_samples[i] == 0) continue;
      sampled.push_back(sample(slot, end));
      if (end < config_.max_model_len) tokens_[at(slot)][at(end)] = sampled.back();
    }
    return sampled;
  }

 private:
  struct Entry {
    ts::Token token = -1;
    std::int32_t position = -1;
  };

  [[nodiscard]] static std::size_t at(std::int32_t index) {
    return static_cast<std::size_t>(index);
  }

  [[nodiscard]] Entry& entry(std::int32_t slot, std::int32_t position) {
    const ts::PageId page = block_table_[at(slot)][at(position / config_.page_size)];
    if (page < 0) throw std::logic_error("a row reads a column that was never patched");
    return kv_[(at(page) * at(config_.page_size)) + at(position % config_.page_size)];
  }

  [[nodiscard]] ts::Token sample(std::int32_t slot, std::int32_t length) {
    std::vector<ts::Token> history;
    for (std::int32_t position = 0; position < length; ++position) {
      const Entry& kv = entry(slot, position);
      if (kv.position != position) throw std::logic_error("a row reads a page of another position");
      history.push_back(kv.token);
    }
    return next_token(history, config_.vocab_size);
  }

  ts::SchedulerConfig config_;
  std::vector<std::vector<ts::Token>> tokens_;
  std::vector<std::vector<ts::PageId>> block_table_;
  std::vector<Entry> kv_;
};

}  // namespace spec
