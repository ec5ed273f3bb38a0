// SPDX-License-Identifier: MIT
#include "ts/admission_policy.h"

#include <algorithm>

namespace ts {
namespace {

constexpr std::size_t kWindow = 32;  // requests passed over in one step

}  // namespace

std::span<const ContentHash> AdmissionPolicy::name_pages(Request& request) const {
  if (config_.enable_prefix_caching) {
    cache_.name_pages(request.salt, request.tokens, request.page_names);
  }
  return request.page_names;
}

void AdmissionPolicy::begin() {
  computing_.clear();
  blocked_.clear();
  passed_over_ = 0;
}

void AdmissionPolicy::note_computing(const Sequence& sequence) {
  const std::vector<ContentHash>& names = sequence.request().page_names;
  const auto column = static_cast<std::size_t>(sequence.pages().shared());
  if (!sequence.pages().cacheable() || column >= names.size()) return;
  computing_.push_back({column, names[column]});
}

AdmissionPolicy::Answer AdmissionPolicy::consider(Request& request, std::int32_t running) {
  // At least one token must be computed, for its logits.
  const auto matchable = static_cast<std::size_t>((request.length() - 1) / config_.page_size);
  const std::span<const ContentHash> names =
      name_pages(request).first(config_.enable_prefix_caching ? matchable : 0);
  const auto is_its_own = [&](const NamedPage& page) {
    return page.column < names.size() && names[page.column] == page.name;
  };
  if (std::ranges::any_of(computing_, is_its_own)) return Answer::kWaits;
  // A page for each running sequence stays available, so that admission causes no retraction.
  const std::int32_t available = pool_.available() - running;
  if (!groups_.fit(request, running) || !may_fit(request, names, available)) {
    return Answer::kBlocked;
  }
  cache_.match(request.salt, request.tokens, names, request.forms, found_);
  if (request.role == Role::kDecode) {
    found_.blocks.resize(static_cast<std::size_t>(found_.on_device));  // a peer sends the rest
  }
  const std::int32_t needed = promise_to(request) + found_.evictable;
  return needed <= available ? Answer::kFits : Answer::kBlocked;
}

// What a request does not find in use, it takes from the available pages. False only if it does not
// find enough.
bool AdmissionPolicy::may_fit(const Request& request, std::span<const ContentHash> names,
                              std::int32_t available) const {
  const std::int32_t whole = pages_for(request.length(), config_.page_size);
  if (whole <= available) return true;
  const auto to_find = static_cast<std::size_t>(whole - available);
  return to_find <= names.size() && cache_.may_be_in_use(names.first(to_find));
}

bool AdmissionPolicy::overtake() {
  bool enough = false;
  for (Request* overtaken : blocked_) enough |= ++overtaken->overtaken >= config_.max_overtakes;
  return !enough;
}

bool AdmissionPolicy::pass_over(Request& request, Answer answer) {
  if (answer == Answer::kBlocked) {
    if (request.overtaken >= config_.max_overtakes) return false;
    blocked_.push_back(&request);
  }
  return ++passed_over_ < kWindow;
}

}  // namespace ts
