// SPDX-License-Identifier: MIT
// The pages of one sequence in column order: shared ones, then those it may write. A written page
// stays InFlight until the last step that writes it has retired, so neither caching nor freeing
// can come too early.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "ts/check.h"
#include "ts/in_flight.h"
#include "ts/page.h"
#include "ts/types.h"

namespace ts {

class SequencePages {
 public:
  [[nodiscard]] std::int32_t shared() const { return static_cast<std::int32_t>(prefix_.size()); }
  [[nodiscard]] std::int32_t columns() const {
    return shared() + static_cast<std::int32_t>(tail_.size() - landed_);
  }
  [[nodiscard]] const SharedPage* last_shared() const {
    return prefix_.empty() ? nullptr : &prefix_.back();
  }
  [[nodiscard]] PageId page(std::int32_t column) const {
    const auto at = static_cast<std::size_t>(column);
    if (at < prefix_.size()) return prefix_[at].id();
    return write_target(tail_[at - prefix_.size() + landed_].peek());
  }

  // Columns before this one are in the device's block table.
  [[nodiscard]] std::int32_t sent() const { return sent_; }
  void send_up_to(std::int32_t column) { sent_ = column; }

  // False once a page could not enter the cache: none behind it can.
  [[nodiscard]] bool cacheable() const { return cacheable_; }
  void never_cache() { cacheable_ = false; }

  void reserve(std::int32_t columns) { prefix_.reserve(static_cast<std::size_t>(columns)); }

  // A page found in the cache. Precondition: nothing was appended yet.
  void match(SharedPage&& page) {
    TS_ASSERT(tail_.empty());
    prefix_.push_back(std::move(page));
  }

  // A page that no step writes yet.
  void append(PageLease&& page) { tail_.emplace_back(std::move(page), kNoStep); }

  // `writer` writes the tokens from this position on.
  void written_from(std::int32_t position, std::int32_t page_size, StepId writer) {
    std::int32_t first = columns() * page_size;  // position of the page's first token
    for (std::size_t at = tail_.size(); at > landed_ && first > position; --at) {
      tail_[at - 1].named_by(writer);
      first -= page_size;
    }
  }

  // Takes the first page behind the shared ones if no step in flight writes it any more; it comes
  // back with share() or keep().
  [[nodiscard]] bool landed(const StepToken& token) const {
    return landed_ < tail_.size() && tail_[landed_].landed(token);
  }
  [[nodiscard]] PageLease land(const StepToken& token) {
    return std::move(tail_[landed_++]).retire(token);
  }
  void share(SharedPage&& page) { prefix_.push_back(std::move(page)); }
  void keep(PageLease&& page, StepId last_writer) {
    tail_[--landed_] = InFlight<PageLease>(std::move(page), last_writer);
  }
  // Another page took the place of the one at `column`; `reader` is the first step to read it.
  void resend_from(std::int32_t column, StepId reader) {
    sent_ = std::min(sent_, column);
    unread_ = std::min(unread_, column);
    reader_ = reader;
  }
  // Shared columns before this one are as the rows of the steps up to this one read them.
  [[nodiscard]] std::int32_t read_by(StepId step) {
    if (step >= reader_) unread_ = INT32_MAX;
    return std::min(shared(), unread_);
  }

  void compact() {
    tail_.erase(tail_.begin(), tail_.begin() + static_cast<std::ptrdiff_t>(landed_));
    landed_ = 0;
  }

  // Gives every page up, the last one first; every step that writes one must have retired.
  template <class TakeLease, class TakeShared>
  void vacate(const StepToken& token, TakeLease take_lease, TakeShared take_shared) && {
    for (; tail_.size() > landed_; tail_.pop_back()) {
      take_lease(std::move(tail_.back()).retire(token));
    }
    for (; !prefix_.empty(); prefix_.pop_back()) take_shared(std::move(prefix_.back()));
  }

 private:
  std::vector<SharedPage> prefix_;
  std::vector<InFlight<PageLease>> tail_;
  std::size_t landed_ = 0;  // of tail_, taken out by land()
  std::int32_t sent_ = 0;
  std::int32_t unread_ = INT32_MAX;  // columns before this were read by every step
  StepId reader_ = kNoStep;          // reads all
  bool cacheable_ = true;
};

}  // namespace ts
