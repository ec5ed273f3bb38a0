// SPDX-License-Identifier: MIT
// Who of those that wait may have a slot: in service order, but a request that does not fit does
// not stop one that does, until it has been overtaken often enough.
//
// Who waits is asked in every step, so nothing but the match of a request that is about to be
// admitted depends on how long its prompt is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ts/config.h"
#include "ts/further_groups.h"
#include "ts/lifecycle.h"
#include "ts/page_pool.h"
#include "ts/prefix_cache.h"
#include "ts/request.h"

namespace ts {

class AdmissionPolicy {
 public:
  AdmissionPolicy(const SchedulerConfig& config, const PrefixCache& cache, const PagePool& pool,
                  const FurtherGroups& groups)
      : config_(config), cache_(cache), pool_(pool), groups_(groups) {}

  // The names of the request's full pages; none without prefix caching. What tokens came since the
  // last call is hashed now.
  std::span<const ContentHash> name_pages(Request& request) const;

  // A plan, in this order.
  void begin();
  // The sequence's first page that is not cached yet is being computed, or loaded: it is there to
  // be matched soon. (If its content is known.)
  void note_computing(const Sequence& sequence);
  enum class Answer : std::uint8_t { kFits, kBlocked, kWaits };
  [[nodiscard]] Answer consider(Request& request, std::int32_t running);
  // The request that fits is admitted; false if nobody else may overtake those that are blocked.
  [[nodiscard]] bool overtake();
  // The request is not admitted; false if nobody may be considered behind it.
  [[nodiscard]] bool pass_over(Request& request, Answer answer);

  // Of the request that was found to fit: its cached prefix, and the pages that finish its prefill.
  [[nodiscard]] const PrefixMatch& found() const { return found_; }
  [[nodiscard]] std::int32_t promise_to(const Request& request) const {
    return pages_for(request.length(), config_.page_size) - found_.on_device;
  }

 private:
  [[nodiscard]] bool may_fit(const Request& request, std::span<const ContentHash> names,
                             std::int32_t available) const;

  const SchedulerConfig& config_;
  const PrefixCache& cache_;
  const PagePool& pool_;
  const FurtherGroups& groups_;

  // Of the plan.
  struct NamedPage {
    std::size_t column;
    ContentHash name;
  };
  std::vector<NamedPage> computing_;
  std::vector<Request*> blocked_;
  std::size_t passed_over_ = 0;
  PrefixMatch found_;
};

}  // namespace ts
