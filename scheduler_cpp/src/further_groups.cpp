// SPDX-License-Identifier: MIT
#include "ts/further_groups.h"

#include <algorithm>
#include <stdexcept>

namespace ts {

FurtherGroups::FurtherGroups(const SchedulerConfig& config, PrefixCache& cache)
    : config_(config), cache_(cache) {
  for (std::size_t i = 0; i < config.cache_groups.size(); ++i) {
    pools_.emplace_back(config.cache_groups[i].num_pages, cache, i + 1);
  }
}

bool FurtherGroups::fit(const Request& request, std::int32_t running) const {
  for (std::size_t i = 0; i < pools_.size() && running > 0; ++i) {
    const std::int32_t whole = pages_for(request.length(), config_.page_size);
    const std::int32_t least = config_.cache_groups[i].least_pages(config_.page_size);
    if (pools_[i].available() - running < std::min(whole, least)) return false;
  }
  return true;
}

std::vector<GroupPages> FurtherGroups::match(const PrefixMatch& found) {
  std::vector<GroupPages> groups;
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    const CacheGroup& group = config_.cache_groups[i];
    GroupPages& pages = groups.emplace_back(group, config_.page_size);
    const std::int32_t position = found.pages() * config_.page_size;
    const std::int32_t first = group.first_column(position, config_.page_size);
    for (std::int32_t column = first; column < found.pages(); ++column) {
      const BlockId block = found.blocks[static_cast<std::size_t>(column)];
      pages.match(column, cache_.acquire(i + 1, block));
    }
  }
  return groups;
}

PagePool* FurtherGroups::lacking(const Sequence& sequence, bool decoding) {
  const std::int32_t next = sequence.launched();
  for (std::size_t i = 0; i < sequence.groups().size(); ++i) {
    const GroupPages& pages = sequence.groups()[i];
    // Where a prefill's chunk will end is not known yet: it gets a page for a column to open.
    const bool opens = !decoding || pages.to_open(next, next + 1).count() > 0;
    if (opens && !pages.has_spare()) return &pools_[i];
  }
  return nullptr;
}

void FurtherGroups::give_spare(PagePool& pool, Sequence& sequence) {
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    if (&pool == &pools_[i]) sequence.groups()[i].keep_spare(pool.take());
  }
}

std::int32_t FurtherGroups::room(const Sequence& sequence, std::int32_t younger) const {
  std::int32_t room = INT32_MAX;
  for (std::size_t i = 0; i < sequence.groups().size(); ++i) {
    const GroupPages& pages = sequence.groups()[i];
    if (pages.group().kind == CacheGroupKind::kRecurrent) continue;  // it opens one column at most
    const std::int32_t start = sequence.launched();
    const std::int32_t next = pages.to_open(start, start + 1).first;
    const std::int32_t more =
        (pages.has_spare() ? 1 : 0) + std::max(0, pools_[i].available() - younger);
    room = std::min(room, (next + more) * config_.page_size - start);
  }
  return room;
}

void FurtherGroups::open(Sequence& sequence, std::int32_t tokens, StepId writer, Plan& plan) {
  const std::int32_t end = sequence.launched() + tokens;
  for (std::size_t i = 0; i < sequence.groups().size(); ++i) {
    GroupPages& pages = sequence.groups()[i];
    const GroupPages::Columns columns = pages.to_open(sequence.launched(), end);
    for (std::int32_t column = columns.first; column <= columns.last; ++column) {
      auto spare = pages.take_spare();
      pages.open(column, spare ? std::move(*spare) : pools_[i].take(), writer);
    }
    pages.launch(sequence.launched_at_least(), end, writer);
    pages.send([&](std::int32_t column, PageId page) {
      plan.group_page_patch[i].push({sequence.slot(), column, page});
    });
  }
}

void FurtherGroups::attach(Sequence& sequence, std::int32_t column, const StepToken& token) {
  for (std::size_t i = 0; i < sequence.groups().size(); ++i) {
    GroupPages& pages = sequence.groups()[i];
    if (!pages.landed(column, token)) continue;
    const BlockId block = cache_.block(*sequence.pages().last_shared());
    auto attached = cache_.attach(i + 1, block, pages.land(column, token));
    if (attached.page) pages.share(column, std::move(*attached.page));
    if (attached.unused) pages.keep(column, std::move(*attached.unused), token.step());
  }
}

void FurtherGroups::give_up_old(Sequence& sequence, const StepToken& token) {
  for (std::size_t i = 0; i < sequence.groups().size(); ++i) {
    sequence.groups()[i].give_up_old(
        sequence.computed(), token, [&](PageLease&& page) { pools_[i].give_back(std::move(page)); },
        [&](SharedPage&& page) { cache_.release(i + 1, std::move(page)); });
  }
}

void FurtherGroups::release(std::vector<GroupPages>&& groups, const StepToken& token) {
  for (std::size_t i = 0; i < groups.size(); ++i) {
    std::move(groups[i]).vacate(
        token, [&](PageLease&& page) { pools_[i].give_back(std::move(page)); },
        [&](SharedPage&& page) { cache_.release(i + 1, std::move(page)); });
  }
}

void FurtherGroups::check(const std::vector<const std::vector<GroupPages>*>& held) const {
  const auto demand = [](bool holds, const char* invariant) {
    if (!holds) throw std::logic_error(invariant);
  };
  for (std::size_t i = 0; i < pools_.size(); ++i) {
    const auto pages = static_cast<std::size_t>(config_.cache_groups[i].num_pages);
    std::vector<std::int32_t> owners(pages, 0);
    std::vector<std::int32_t> references(pages, 0);
    const auto own = [&owners](PageId page) { ++owners[static_cast<std::size_t>(page)]; };
    for (const PageId page : pools_[i].free_pages()) own(page);
    for (const PageId page : cache_.orphans(i + 1)) own(page);
    for (const std::vector<GroupPages>* groups : held) {
      (*groups)[i].each([&](PageId page, bool shared) {
        if (shared) ++references[static_cast<std::size_t>(page)];
        if (!shared) own(page);
      });
    }
    for (std::size_t page = 0; page < pages; ++page) {
      const auto id = static_cast<PageId>(page);
      const bool cached = cache_.holds(i + 1, id);
      demand(owners[page] + (cached ? 1 : 0) == 1, "a further group's page has one owner");
      demand(references[page] == (cached ? cache_.references(i + 1, id) : 0),
             "a further group's shared page is counted once per sequence that holds it");
    }
  }
}

std::int32_t end_at_snapshot(const Sequence& sequence, std::int32_t tokens,
                             std::int32_t page_size) {
  for (const GroupPages& pages : sequence.groups()) {
    if (pages.group().kind != CacheGroupKind::kRecurrent) continue;
    const std::int32_t end = sequence.launched() + tokens;
    const std::int32_t boundary = end / page_size * page_size;
    if (boundary > sequence.launched()) return boundary - sequence.launched();
  }
  return tokens;
}

}  // namespace ts
