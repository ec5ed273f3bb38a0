// SPDX-License-Identifier: MIT
// A device that executes plans on tables and "KV": each entry is a token, its position, the form in
// which it was computed (ts/forms.h), and a digest of all this for it and what is before it: its
// bits. The token sampled is a hash of the whole history read back through the block table. A page
// mix-up changes the output, which `next_token` on the plain history gives away; an entry whose
// bits are not those that the sequence alone would have computed throws.
//
// An entry may be spoilt, as by a NaN: so is then whatever is computed behind it, and no token can
// be sampled with it in the context.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <stdexcept>
#include <vector>

#include "ts/content_hash.h"
#include "ts/forms.h"
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
        forms_(at(config.max_num_seqs), ts::Forms(0, 0)),
        kv_(at(config.num_pages) * at(config.page_size)),
        host_(at(config.num_host_pages) * at(config.page_size)) {
    for (const ts::CacheGroup& group : config.cache_groups) groups_.emplace_back(group, config_);
  }

  // `right_drafts(n)`: how many of a row's n draft tokens the model will agree with.
  template <class RightDrafts>
  [[nodiscard]] Yield execute(const ts::Plan& plan, RightDrafts right_drafts) {
    patch(plan);
    begin_transfers(plan);
    Yield yield;
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
      const std::int32_t slot = plan.row_slot[i];
      // The planner counts the drafts of a step in flight as accepted; here it is known.
      const std::int32_t start = std::min(plan.row_start[i], computed_[at(slot)]);
      const std::int32_t samples = plan.row_samples[i];
      computed_[at(slot)] = start + plan.row_tokens[i];
      expands_ = i >= at(plan.num_absorbed_rows);
      begin_row(slot, start);
      if (samples == 0) {
        for (std::int32_t j = 0; j < plan.row_tokens[i]; ++j) compute(slot, start + j);
        end_row(slot, start + plan.row_tokens[i]);
        continue;
      }
      const std::int32_t drafts = samples - 1;
      for (std::int32_t j = 0; j < plan.row_tokens[i] - samples; ++j) compute(slot, start + j);
      const std::int32_t last = start + plan.row_tokens[i] - samples;  // of the known tokens
      std::int32_t count = 1 + right_drafts(drafts);
      for (std::int32_t j = 0; j <= drafts; ++j) {
        compute(slot, last + j);
        const ts::Token token = sample(slot, last + j + 1);
        if (token == ts::kNoToken && j < count) count = j + 1;
        const bool wrong = j + 1 >= count;
        if (j < count) yield.tokens.push_back(token);
        const ts::Token next = std::max(0, token);
        write(slot, last + j + 1, wrong && j < drafts ? (next + 1) % config_.vocab_size : next);
      }
      end_row(slot, start + plan.row_tokens[i]);
      write(slot, last + count, std::max(0, yield.tokens.back()));
      computed_[at(slot)] = last + count;
      yield.counts.push_back(count);
    }
    return yield;
  }

  // Asked for each entry that is computed: does something spoil it?
  std::function<bool()> spoils = [] { return false; };

  // What a peer got, by request: as late as the end of its transfer.
  std::map<ts::RequestId, std::vector<ts::Token>> sent;

  // Rows that sampled behind a prompt with another sequence's generated tokens, in their form.
  std::uint64_t read_generated = 0;

  [[nodiscard]] std::size_t transfers() const { return transfers_.size(); }

  // Ends one of the transfers that are under way: as late as this it writes where it goes to, and
  // what a plan displaces is read as late as the end of its store or of the load that displaces it.
  [[nodiscard]] std::uint64_t end_transfer(std::size_t which, bool ok) {
    Transfer ended = std::move(transfers_[which]);
    transfers_.erase(transfers_.begin() + static_cast<std::ptrdiff_t>(which));
    if (ended.kind == ts::TransferKind::kDisplace) read_displaced(ended);
    if (ended.loads()) {
      for (Transfer& other : transfers_) {
        if (other.kind == ts::TransferKind::kDisplace && ended.shares_a_page_with(other)) {
          read_displaced(other);
        }
      }
      for (const ts::PageId page : ended.device_pages) wipe(kv_, page);
    }
    for (std::size_t i = 0;
         (ok || ended.kind == ts::TransferKind::kSend) && i < ended.host_pages.size(); ++i) {
      const std::size_t size = at(config_.page_size);
      const std::size_t device = at(ended.device_pages[i]) * size;
      const std::size_t host = at(std::max(0, ended.host_pages[i])) * size;
      for (std::size_t j = 0; j < size; ++j) {
        if (ended.kind == ts::TransferKind::kLoad) {
          kv_[device + j] = host_[host + j];
        } else if (ended.kind == ts::TransferKind::kReceive) {
          kv_[device + j] = ended.content[i * size + j];
        } else if (ended.kind == ts::TransferKind::kSend) {
          sent[ended.request].push_back(kv_[device + j].token);
        } else {
          host_[host + j] = ended.content[i * size + j];
        }
      }
    }
    return ended.id;
  }

 private:
  struct Entry {
    ts::Token token = -1;
    std::int32_t position = -1;
    bool expanded = false;
    ts::ContentHash bits = 0;
    bool spoilt = false;
  };

  // The bits of an entry behind those before it.
  [[nodiscard]] static ts::ContentHash bits(ts::ContentHash before, ts::Token token,
                                            bool expanded) {
    return digest(before, 2 * token + (expanded ? 1 : 0));
  }

  struct Transfer {
    std::uint64_t id;
    ts::RequestId request;
    ts::TransferKind kind;
    std::vector<ts::PageId> device_pages, host_pages;
    std::vector<Entry> content;  // that a store has read, or a peer has computed

    [[nodiscard]] bool loads() const {
      return kind == ts::TransferKind::kLoad || kind == ts::TransferKind::kReceive;
    }
    [[nodiscard]] bool shares_a_page_with(const Transfer& other) const {
      return std::ranges::find_first_of(device_pages, other.device_pages) != device_pages.end();
    }
  };

  // A recurrent state: how many tokens it comes after, and a digest of them.
  struct State {
    std::int32_t tokens = -1;
    ts::ContentHash digest = 0;
  };

  struct Group {
    Group(const ts::CacheGroup& group, const ts::SchedulerConfig& config)
        : group(group),
          block_table(at(config.max_num_seqs),
                      std::vector<ts::PageId>(at(ts::pages_per_sequence(config)), -1)),
          kv(at(group.num_pages) * at(config.page_size)),
          states(at(group.num_pages)) {}
    ts::CacheGroup group;
    std::vector<std::vector<ts::PageId>> block_table;
    std::vector<Entry> kv;      // sliding window
    std::vector<State> states;  // recurrent
    State state;                // of the row that is being computed
  };

  [[nodiscard]] static std::size_t at(std::int32_t index) {
    return static_cast<std::size_t>(index);
  }

  void patch(const ts::Plan& plan) {
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      auto& row = tokens_[at(plan.admitted_slot[i])];
      for (auto& page : block_table_[at(plan.admitted_slot[i])]) page = -1;
      for (Group& group : groups_) {
        for (auto& page : group.block_table[at(plan.admitted_slot[i])]) page = -1;
      }
      std::copy(plan.admitted_tokens.data() + plan.admitted_offset[i],
                plan.admitted_tokens.data() + plan.admitted_offset[i + 1], row.begin());
      computed_[at(plan.admitted_slot[i])] = config_.max_model_len;  // the plan knows better
      forms_[at(plan.admitted_slot[i])] =
          ts::Forms(plan.admitted_prompt_tokens[i], config_.absorb_from);
    }
    for (std::size_t i = 0; i < plan.page_patch.size(); ++i) {
      const ts::PagePatch& patch = plan.page_patch[i];
      block_table_[at(patch.slot)][at(patch.column)] = patch.page;
    }
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      const auto& patches = plan.group_page_patch[group];
      for (std::size_t i = 0; i < patches.size(); ++i) {
        groups_[group].block_table[at(patches[i].slot)][at(patches[i].column)] = patches[i].page;
      }
    }
  }

  // A store reads its device pages now, before this plan's rows write them; where a transfer
  // writes, nothing can be relied on until it has ended.
  void begin_transfers(const ts::Plan& plan) {
    for (std::size_t i = 0; i < plan.transfer_id.size(); ++i) {
      Transfer transfer{plan.transfer_id[i],
                        plan.transfer_request[i],
                        static_cast<ts::TransferKind>(plan.transfer_kind[i]),
                        {},
                        {},
                        {}};
      const auto end = at(plan.transfer_offset[i + 1]);
      for (std::size_t j = at(plan.transfer_offset[i]); j < end; ++j) {
        transfer.device_pages.push_back(plan.transfer_device_page[j]);
        transfer.host_pages.push_back(plan.transfer_host_page[j]);
      }
      if (transfer.kind == ts::TransferKind::kStore) read(transfer);
      if (transfer.kind == ts::TransferKind::kStore ||
          transfer.kind == ts::TransferKind::kDisplace) {
        for (const ts::PageId page : transfer.host_pages) wipe(host_, page);
      }
      if (transfer.loads() && !displaces(transfer)) {
        for (const ts::PageId page : transfer.device_pages) wipe(kv_, page);
      }
      if (transfer.kind == ts::TransferKind::kReceive) compute_elsewhere(plan, transfer);
      transfers_.push_back(std::move(transfer));
    }
  }

  // Does it wait for a store of what its pages hold?
  [[nodiscard]] bool displaces(const Transfer& load) const {
    return std::ranges::any_of(transfers_, [&load](const Transfer& other) {
      return other.kind == ts::TransferKind::kDisplace && load.shares_a_page_with(other);
    });
  }

  void read_displaced(Transfer& store) {
    if (store.content.empty()) read(store);
  }

  void read(Transfer& store) {
    for (const ts::PageId page : store.device_pages) {
      for (std::int32_t j = 0; j < config_.page_size; ++j) {
        store.content.push_back(kv_[at(page * config_.page_size + j)]);
      }
    }
  }

  void wipe(std::vector<Entry>& memory, ts::PageId page) const {
    const auto first = memory.begin() + static_cast<std::ptrdiff_t>(page) * config_.page_size;
    std::fill_n(first, config_.page_size, Entry{});
  }

  // The KV of all but the prompt's last token, in the last columns that it fills.
  void compute_elsewhere(const ts::Plan& plan, Transfer& transfer) {
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      if (plan.admitted_request[i] != transfer.request) continue;
      const std::int32_t known = plan.admitted_offset[i + 1] - plan.admitted_offset[i] - 1;
      const auto pages = static_cast<std::int32_t>(transfer.device_pages.size());
      const std::int32_t first = ts::pages_for(known, config_.page_size) - pages;
      const ts::Forms forms(plan.admitted_prompt_tokens[i], config_.absorb_from);
      Entry entry;
      for (std::int32_t q = 0; q < (first + pages) * config_.page_size; ++q) {
        if (q < known) {
          const bool expanded = q < forms.expanded_length;
          const ts::Token token = tokens_[at(plan.admitted_slot[i])][at(q)];
          entry = {token, q, expanded, bits(entry.bits, token, expanded)};
        } else {
          entry = {};
        }
        if (q >= first * config_.page_size) transfer.content.push_back(entry);
      }
    }
  }

  void begin_row(std::int32_t slot, std::int32_t start) {
    for (Group& group : groups_) {
      if (group.group.kind != ts::CacheGroupKind::kRecurrent) continue;
      group.state = start == 0 ? State{0, 0} : group.states[group_page(group, slot, start - 1)];
      if (group.state.tokens != start) throw std::logic_error("a row reads another state");
    }
  }

  void end_row(std::int32_t slot, std::int32_t end) {
    for (Group& group : groups_) {
      if (group.group.kind != ts::CacheGroupKind::kRecurrent) continue;
      group.states[group_page(group, slot, end - 1)] = group.state;
    }
  }

  [[nodiscard]] std::size_t group_page(const Group& group, std::int32_t slot,
                                       std::int32_t position) const {
    const ts::PageId page = group.block_table[at(slot)][at(position / config_.page_size)];
    if (page < 0) throw std::logic_error("a row reads a group's column that was never patched");
    return at(page);
  }

  void compute_in_groups(std::int32_t slot, std::int32_t position, ts::Token token) {
    for (Group& group : groups_) {
      if (group.group.kind == ts::CacheGroupKind::kRecurrent) {
        group.state = {position + 1, digest(group.state.digest, token)};
        continue;
      }
      const auto entry_at = [&](std::int32_t where) -> Entry& {
        return group.kv[group_page(group, slot, where) * at(config_.page_size) +
                        at(where % config_.page_size)];
      };
      entry_at(position) = {token, position};
      for (std::int32_t q = std::max(0, position + 1 - group.group.window); q <= position; ++q) {
        if (entry_at(q).position != q || entry_at(q).token != entry(slot, q).token) {
          throw std::logic_error("a window reads a page of another position");
        }
      }
    }
  }

  [[nodiscard]] static ts::ContentHash digest(ts::ContentHash before, ts::Token token) {
    return ts::hash_page(before + 1, std::span<const ts::Token>(&token, 1));
  }

  void write(std::int32_t slot, std::int32_t position, ts::Token token) {
    if (position < config_.max_model_len) tokens_[at(slot)][at(position)] = token;
  }

  void compute(std::int32_t slot, std::int32_t position) {
    if (expands_ != (position < forms_[at(slot)].expanded_length)) {
      throw std::logic_error("a row has a token of another form");
    }
    const ts::Token token = tokens_[at(slot)][at(position)];
    const ts::ContentHash before = position == 0 ? 0 : entry(slot, position - 1).bits;
    const bool spoilt = (position > 0 && entry(slot, position - 1).spoilt) || spoils();
    entry(slot, position) = {token, position, expands_, bits(before, token, expands_), spoilt};
    compute_in_groups(slot, position, tokens_[at(slot)][at(position)]);
  }

  [[nodiscard]] Entry& entry(std::int32_t slot, std::int32_t position) {
    const ts::PageId page = block_table_[at(slot)][at(position / config_.page_size)];
    if (page < 0) throw std::logic_error("a row reads a column that was never patched");
    return kv_[(at(page) * at(config_.page_size)) + at(position % config_.page_size)];
  }

  [[nodiscard]] ts::Token sample(std::int32_t slot, std::int32_t length) {
    std::vector<ts::Token> history;
    const ts::Forms& forms = forms_[at(slot)];
    ts::ContentHash before = 0;
    bool spoilt = false;
    bool generated = false;  // tokens of the prompt were, by another sequence
    for (std::int32_t position = 0; position < length; ++position) {
      const Entry& kv = entry(slot, position);
      if (kv.position != position) throw std::logic_error("a row reads a page of another position");
      if (kv.expanded != (position < forms.expanded_length)) {
        if (position >= forms.prompt_length) {
          throw std::logic_error("a generated token was computed in another form");
        }
        generated = true;
      }
      if (kv.bits != bits(before, kv.token, kv.expanded) &&
          !(generated && position < forms.prompt_length)) {
        throw std::logic_error("a row reads other bits than it would compute");
      }
      before = kv.bits;
      spoilt |= kv.spoilt;
      history.push_back(kv.token);
    }
    read_generated += generated ? 1 : 0;
    for (const Group& group : groups_) {
      if (group.group.kind != ts::CacheGroupKind::kRecurrent) continue;
      ts::ContentHash expected = 0;
      for (const ts::Token token : history) expected = digest(expected, token);
      if (group.state.digest != expected) throw std::logic_error("a state is of another history");
    }
    return spoilt ? ts::kNoToken : next_token(history, config_.vocab_size);
  }

  ts::SchedulerConfig config_;
  std::vector<std::vector<ts::Token>> tokens_;
  std::vector<std::vector<ts::PageId>> block_table_;
  std::vector<std::int32_t> computed_;  // tokens with KV, by slot
  std::vector<ts::Forms> forms_;        // by slot
  bool expands_ = false;                // the row that is being computed
  std::vector<Entry> kv_;
  std::vector<Entry> host_;
  std::vector<Transfer> transfers_;
  std::vector<Group> groups_;
};

}  // namespace spec
