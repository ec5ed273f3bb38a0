// SPDX-License-Identifier: MIT
// A device that executes plans on tables and "KV": each entry is a token and its position, and the
// token sampled is a hash of the whole history read back through the block table. A page mix-up
// changes the output, which `next_token` on the plain history gives away.
#pragma once

#include <algorithm>
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

// What a step yields: the tokens of every sampling row, and how many each has.
struct Yield {
  std::vector<ts::Token> tokens;
  std::vector<std::int32_t> counts;
};

class Device {
 public:
  explicit Device(const ts::SchedulerConfig& config)
      : config_(config),
        tokens_(at(config.max_num_seqs), std::vector<ts::Token>(at(config.max_model_len), -1)),
        block_table_(at(config.max_num_seqs),
                     std::vector<ts::PageId>(at(ts::pages_per_sequence(config)), -1)),
        computed_(at(config.max_num_seqs)),
        kv_(at(config.num_pages) * at(config.page_size)) {}

  // `right_drafts(n)`: how many of a row's n draft tokens the model will agree with.
  template <class RightDrafts>
  [[nodiscard]] Yield execute(const ts::Plan& plan, RightDrafts right_drafts) {
    patch(plan);
    Yield yield;
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
      const std::int32_t slot = plan.row_slot[i];
      // The planner counts the drafts of a step in flight as accepted; here it is known.
      const std::int32_t start = std::min(plan.row_start[i], computed_[at(slot)]);
      const std::int32_t samples = plan.row_samples[i];
      computed_[at(slot)] = start + plan.row_tokens[i];
      if (samples == 0) {
        for (std::int32_t j = 0; j < plan.row_tokens[i]; ++j) compute(slot, start + j);
        continue;
      }
      const std::int32_t drafts = samples - 1;
      for (std::int32_t j = 0; j < plan.row_tokens[i] - samples; ++j) compute(slot, start + j);
      const std::int32_t last = start + plan.row_tokens[i] - samples;  // of the known tokens
      const std::int32_t count = 1 + right_drafts(drafts);
      for (std::int32_t j = 0; j <= drafts; ++j) {
        compute(slot, last + j);
        const ts::Token token = sample(slot, last + j + 1);
        const bool wrong = j + 1 >= count;
        if (j < count) yield.tokens.push_back(token);
        write(slot, last + j + 1, wrong && j < drafts ? (token + 1) % config_.vocab_size : token);
      }
      write(slot, last + count, yield.tokens.back());
      computed_[at(slot)] = last + count;
      yield.counts.push_back(count);
    }
    return yield;
  }

 private:
  struct Entry {
    ts::Token token = -1;
    std::int32_t position = -1;
  };

  [[nodiscard]] static std::size_t at(std::int32_t index) {
    return static_cast<std::size_t>(index);
  }

  void patch(const ts::Plan& plan) {
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      auto& row = tokens_[at(plan.admitted_slot[i])];
      for (auto& page : block_table_[at(plan.admitted_slot[i])]) page = -1;
      std::copy(plan.admitted_tokens.data() + plan.admitted_offset[i],
                plan.admitted_tokens.data() + plan.admitted_offset[i + 1], row.begin());
      computed_[at(plan.admitted_slot[i])] = config_.max_model_len;  // the plan knows better
    }
    for (std::size_t i = 0; i < plan.page_patch.size(); ++i) {
      const ts::PagePatch& patch = plan.page_patch[i];
      block_table_[at(patch.slot)][at(patch.column)] = patch.page;
    }
  }

  void write(std::int32_t slot, std::int32_t position, ts::Token token) {
    if (position < config_.max_model_len) tokens_[at(slot)][at(position)] = token;
  }

  void compute(std::int32_t slot, std::int32_t position) {
    entry(slot, position) = {tokens_[at(slot)][at(position)], position};
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
  std::vector<std::int32_t> computed_;  // tokens with KV, by slot
  std::vector<Entry> kv_;
};

}  // namespace spec
