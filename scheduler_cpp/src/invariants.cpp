// SPDX-License-Identifier: MIT
// What holds between any two calls; see the guarantees in the design.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "ts/scheduler.h"

namespace ts {
namespace {

void demand(bool holds, const char* invariant) {
  if (!holds) throw std::logic_error(invariant);
}

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <class... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;  // clang deduces it from version 17 on

}  // namespace

void Scheduler::check_invariants() const {
  cache_.check();

  // Every page is owned exactly once: free, leased, or in the prefix cache.
  enum class Owner : std::uint8_t { kNobody, kPool, kSequence, kCache };
  std::vector<Owner> owners(static_cast<std::size_t>(config_.num_pages), Owner::kNobody);
  const auto own = [&owners](PageId page, Owner owner) {
    demand(page >= 0 && page < static_cast<PageId>(owners.size()), "a page id is in the pool");
    Owner& current = owners[static_cast<std::size_t>(page)];
    demand(current == Owner::kNobody, "a page has one owner");
    current = owner;
  };
  for (const PageId page : pool_.free_pages()) own(page, Owner::kPool);
  for (PageId page = 0; page < config_.num_pages; ++page) {
    if (cache_.holds(kFullAttention, page)) own(page, Owner::kCache);
  }

  std::vector<std::int32_t> references(owners.size(), 0);
  std::int32_t seats = 0;
  std::int32_t reserved = 0;
  const auto seated = [&](const Holdings& held) {
    ++seats;
    reserved += held.promised.pages();
    const SequencePages& pages = held.pages;
    for (std::int32_t column = 0; column < pages.columns(); ++column) {
      if (column < pages.shared()) {
        ++references[static_cast<std::size_t>(pages.page(column))];
      } else {
        own(pages.page(column), Owner::kSequence);
      }
    }
    demand(pages.sent() <= pages.columns(), "only existing columns were sent");
    demand(pages.columns() <= pages_per_sequence(config_), "a sequence fits its table row");
  };
  const auto running = [&](const Sequence& state) {
    seated(state.holdings());
    demand(state.computed() <= state.launched_at_least() &&
               state.launched_at_least() <= state.launched(),
           "what is computed was launched");
    demand(state.pages().columns() >= pages_for(state.launched(), config_.page_size),
           "a sequence has a page for every token that is computed or in flight");
    demand(state.pages().shared() <= state.computed() / config_.page_size,
           "only full, computed pages are shared");
  };
  const auto resting = [&](const Sequence& state) {
    running(state);
    demand(state.computed() == state.launched(), "a sequence at rest has nothing in flight");
  };
  const auto prefilling = [&](const Sequence& state) {
    demand(state.launched() < state.request().length(), "a prefill has something left");
    demand(state.pages().columns() + state.promised().pages() ==
               pages_for(state.request().length(), config_.page_size),
           "a prefill has been promised every page it needs");
  };
  const auto decoding = [&](const Decoding& state) {
    demand(state.promised().pages() == 0, "a decoding sequence is promised nothing");
    demand(state.launched() >= state.request().length() - 1,
           "a decoding sequence has all but its last token computed or in flight");
  };
  std::int32_t loading = 0;
  std::int32_t draining_loads = 0;
  std::int32_t sending = 0;
  std::int32_t flying = 0;
  std::int32_t draining = 0;
  const StepToken retired = clock_.retired();
  const auto stepping = [&](const auto& state) {
    if (state.landed(retired)) return resting(state.peek());
    ++flying;
    running(state.peek());
  };
  for (SlotId id = 0; id < config_.max_num_seqs; ++id) {
    std::visit(
        Overloaded{
            [](std::monostate) {},
            [&](const InFlight<Prefilling>& state) { stepping(state), prefilling(state.peek()); },
            [&](const InFlight<Decoding>& state) { stepping(state), decoding(state.peek()); },
            [&](const InFlight<Draining>& state) {
              ++draining;
              seated(state.peek().holdings());
            },
            [&](const InFlight<Loading, TransferToken>& state) {
              ++loading;
              resting(state.peek());
              prefilling(state.peek());
            },
            [&](const InFlight<Receiving, TransferToken>& state) {
              ++loading;
              resting(state.peek());
              prefilling(state.peek());
            },
            [&](const InFlight<Sending, TransferToken>& state) {
              ++sending;
              seated(state.peek().holdings());
            },
            [&](const InFlight<Draining, TransferToken>& state) {
              ++loading;
              ++draining_loads;
              seated(state.peek().holdings());
            },
        },
        slots_[static_cast<std::size_t>(id)]);
  }
  for (const auto& page : replaced_) own(page.peek().id(), Owner::kSequence);
  for (PageId page = 0; page < config_.num_pages; ++page) {
    const auto at = static_cast<std::size_t>(page);
    demand(owners[at] != Owner::kNobody, "no page is lost");
    demand(references[at] ==
               (cache_.holds(kFullAttention, page) ? cache_.references(kFullAttention, page) : 0),
           "a shared page is counted once per sequence that holds it");
  }
  demand(reserved == pool_.reserved(), "every promise is held by a prefill");
  demand(pool_.available() >= 0, "no page is promised twice");
  demand(seats + slot_pool_.free() == config_.max_num_seqs, "a slot has one owner");

  demand(static_cast<std::int32_t>(running_.size()) + draining + draining_loads + sending == seats,
         "every sequence with a slot runs or drains");
  for (std::size_t i = 1; i < running_.size(); ++i) {
    demand(
        sequence_in(running_[i - 1])->request().order < sequence_in(running_[i])->request().order,
        "running sequences stand in service order");
  }
  demand(places_.size() == running_.size() + waiting_.size(), "every request is in one place");
  for (const SlotId id : running_) {
    const auto place = places_.find(sequence_in(id)->request().id);
    demand(place != places_.end() && place->second.slot == id, "a running request is found");
  }
  demand(draining == draining_, "every draining sequence is counted");
  check_transfers(loading, sending);
  check_groups();
  check_names();
  std::vector<bool> named(static_cast<std::size_t>(config_.max_num_seqs), false);
  for (std::uint64_t step = clock_.oldest_in_flight().number(); step <= clock_.launched(); ++step) {
    for (const PlannedStep::Row& row : steps_[step % steps_.size()].rows) {
      named[static_cast<std::size_t>(row.slot)] = true;
    }
  }
  demand(flying + draining == std::ranges::count(named, true),
         "a sequence is in flight exactly while a step names it");
}

void Scheduler::check_transfers(std::int32_t loading, std::int32_t sending) const {
  transfers_.check();
  std::int32_t loads = 0;
  auto sends = static_cast<std::int32_t>(transfers_.sends().size());
  std::int32_t written = 0;
  for (const auto& [id, transfer] : transfers_.under_way()) {
    if (const auto* stores = std::get_if<Stores>(&transfer)) {
      written += static_cast<std::int32_t>(stores->pages.peek().size());
      continue;
    }
    if (std::holds_alternative<Send>(transfer)) {
      ++sends;
      continue;
    }
    ++loads;
    for (const BlockId block : std::get<Load>(transfer).blocks) {
      demand(cache_.host().has(block), "what is being loaded stays in the host tier");
    }
  }
  demand(loads == loading, "every load has a sequence that waits for it");
  demand(sends == sending, "every send has a sequence whose pages it reads");
  cache_.host().check(written);
}

// What admission asks of names alone agrees with what a match finds when all tokens are compared.
void Scheduler::check_names() const {
  if (!config_.enable_prefix_caching) return;
  const auto check = [this](const Request& request) {
    std::vector<ContentHash> fresh;
    cache_.name_pages(request.salt, request.tokens, fresh);
    const std::span<const ContentHash> names = request.page_names;
    demand(names.size() <= fresh.size() &&
               std::ranges::equal(names, std::span(fresh).first(names.size())),
           "a page's name is that of its tokens");
    PrefixMatch found;
    cache_.match(request.salt, request.tokens, names, request.forms, found);
    for (auto pages = static_cast<std::size_t>(found.on_device - found.evictable); pages > 0;
         --pages) {
      demand(cache_.may_be_in_use(names.first(pages)), "a match in use is in use by its name");
    }
  };
  for (const SlotId id : running_) check(sequence_in(id)->request());
  waiting_.each(check);
}

// Every page of a further group is owned exactly once, too.
void Scheduler::check_groups() const {
  std::vector<const std::vector<GroupPages>*> held;
  for (SlotId id = 0; id < config_.max_num_seqs; ++id) {
    const Slot& state = slots_[static_cast<std::size_t>(id)];
    if (const Sequence* sequence = sequence_in(id)) {
      held.push_back(&sequence->groups());
      for (const GroupPages& pages : sequence->groups()) check_reach(*sequence, pages);
    } else if (const auto* draining = std::get_if<InFlight<Draining>>(&state)) {
      held.push_back(&draining->peek().holdings().groups);
    }
  }
  if (!config_.cache_groups.empty()) groups_.check(held);
}

// What computing the next token reads is there.
void Scheduler::check_reach(const Sequence& sequence, const GroupPages& pages) const {
  const CacheGroup& kind = pages.group();
  const std::int32_t computed = sequence.computed();
  const std::int32_t end = pages_for(computed, config_.page_size);
  for (std::int32_t column = kind.first_column(computed, config_.page_size); column < end;
       ++column) {
    demand(pages.has(column), "a sequence has the pages that its next token reads");
  }
}

}  // namespace ts
