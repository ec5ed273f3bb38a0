// SPDX-License-Identifier: MIT
// The pages of one sequence in a further cache group: those of the columns that computing its next
// token reads or writes, oldest first. Pages of older columns are given up while it runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <variant>

#include "ts/cache_group.h"
#include "ts/check.h"
#include "ts/in_flight.h"
#include "ts/page.h"
#include "ts/types.h"

namespace ts {

class GroupPages {
 public:
  GroupPages(const CacheGroup& group, std::int32_t page_size)
      : group_(group), page_size_(page_size) {}

  [[nodiscard]] const CacheGroup& group() const { return group_; }

  // A page found in the cache. Columns come in ascending order.
  void match(std::int32_t column, SharedPage&& page) {
    entries_.push_back({column, std::move(page), (column + 1) * page_size_, false});
  }

  // The columns that a row needs pages for if it computes [start, end): first and last; none, if
  // first > last.
  struct Columns {
    std::int32_t first;
    std::int32_t last;
    [[nodiscard]] std::int32_t count() const { return std::max(0, last - first + 1); }
  };
  [[nodiscard]] Columns to_open(std::int32_t start, std::int32_t end) const {
    const std::int32_t last = (end - 1) / page_size_;
    const std::int32_t next = entries_.empty() ? 0 : entries_.back().column + 1;
    const bool recurrent = group_.kind == CacheGroupKind::kRecurrent;
    return {std::max(next, recurrent ? last : start / page_size_), last};
  }

  // A page in hand for the next column to be opened, so that the sequence can go on.
  [[nodiscard]] bool has_spare() const { return spare_.has_value(); }
  void keep_spare(PageLease&& page) { spare_.emplace(std::move(page)); }
  [[nodiscard]] std::optional<PageLease> take_spare() {
    return std::exchange(spare_, std::nullopt);
  }

  void open(std::int32_t column, PageLease&& page, StepId writer) {
    entries_.push_back({column, InFlight<PageLease>(std::move(page), writer), 0, false});
  }

  // A step computes tokens up to `end`; what it writes begins at `start` at the earliest.
  void launch(std::int32_t start, std::int32_t end, StepId writer) {
    for (Entry& entry : entries_) {
      if (entry.column < start / page_size_) continue;
      if (auto* lease = std::get_if<InFlight<PageLease>>(&entry.page)) lease->named_by(writer);
    }
    entries_.back().tokens = end;
  }

  // The column's page, if it may enter the cache: it holds what the column's last token left, and
  // no step in flight writes it.
  [[nodiscard]] bool landed(std::int32_t column, const StepToken& token) const {
    const Entry* entry = find(column);
    if (entry == nullptr) return false;
    const auto* lease = std::get_if<InFlight<PageLease>>(&entry->page);
    const bool recurrent = group_.kind == CacheGroupKind::kRecurrent;
    return lease != nullptr && lease->landed(token) &&
           (!recurrent || entry->tokens == (column + 1) * page_size_);
  }
  [[nodiscard]] PageLease land(std::int32_t column, const StepToken& token) {
    return std::move(std::get<InFlight<PageLease>>(find(column)->page)).retire(token);
  }
  void share(std::int32_t column, SharedPage&& page) { find(column)->page = std::move(page); }
  void keep(std::int32_t column, PageLease&& page, StepId last_writer) {
    find(column)->page = InFlight<PageLease>(std::move(page), last_writer);
  }

  // Calls `take(slot column, page)` for every page that the device's table does not have yet.
  template <class Take>
  void send(Take take) {
    for (Entry& entry : entries_) {
      if (!std::exchange(entry.sent, true)) take(entry.column, page(entry));
    }
  }

  // Gives up the pages that nobody computes with any more, `computed` tokens being committed.
  template <class TakeLease, class TakeShared>
  void give_up_old(std::int32_t computed, const StepToken& token, TakeLease take_lease,
                   TakeShared take_shared) {
    const std::int32_t first = group_.first_column(computed, page_size_);
    while (!entries_.empty() && entries_.front().column < first) {
      const auto* lease = std::get_if<InFlight<PageLease>>(&entries_.front().page);
      if (lease != nullptr && !lease->landed(token)) return;
      give_up(entries_.front(), token, take_lease, take_shared);
      entries_.pop_front();
    }
  }

  // Gives every page up, the last one first; every step that writes one must have retired.
  template <class TakeLease, class TakeShared>
  void vacate(const StepToken& token, TakeLease take_lease, TakeShared take_shared) && {
    if (auto spare = take_spare()) take_lease(std::move(*spare));
    for (; !entries_.empty(); entries_.pop_back()) {
      give_up(entries_.back(), token, take_lease, take_shared);
    }
  }

  // Calls `see(page, shared)` for every page, the spare one included.
  template <class See>
  void each(See see) const {
    if (spare_) see(spare_->id(), false);
    for (const Entry& entry : entries_) {
      see(page(entry), std::holds_alternative<SharedPage>(entry.page));
    }
  }
  [[nodiscard]] bool has(std::int32_t column) const { return find(column) != nullptr; }

 private:
  struct Entry {
    std::int32_t column;
    std::variant<SharedPage, InFlight<PageLease>> page;
    std::int32_t tokens;  // of the sequence, that a recurrent state comes after
    bool sent;            // to the device's table
  };

  [[nodiscard]] static PageId page(const Entry& entry) {
    const auto* lease = std::get_if<InFlight<PageLease>>(&entry.page);
    return lease != nullptr ? write_target(lease->peek()) : std::get<SharedPage>(entry.page).id();
  }

  template <class TakeLease, class TakeShared>
  static void give_up(Entry& entry, const StepToken& token, TakeLease take_lease,
                      TakeShared take_shared) {
    if (auto* lease = std::get_if<InFlight<PageLease>>(&entry.page)) {
      take_lease(std::move(*lease).retire(token));
    } else {
      take_shared(std::move(std::get<SharedPage>(entry.page)));
    }
  }

  [[nodiscard]] const Entry* find(std::int32_t column) const {
    const auto found = std::ranges::lower_bound(entries_, column, {}, &Entry::column);
    return found != entries_.end() && found->column == column ? &*found : nullptr;
  }
  [[nodiscard]] Entry* find(std::int32_t column) {
    const auto found = std::ranges::lower_bound(entries_, column, {}, &Entry::column);
    return found != entries_.end() && found->column == column ? &*found : nullptr;
  }

  CacheGroup group_;
  std::int32_t page_size_;
  std::deque<Entry> entries_;
  std::optional<PageLease> spare_;
};

}  // namespace ts
