// SPDX-License-Identifier: MIT
// The cache groups beside full attention: a pool each, and what a sequence needs of them to begin,
// to go on and to be found again. They promise nothing: their pages come and go while a prefill
// runs, and the youngest sequence gives way when they run out.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "ts/config.h"
#include "ts/lifecycle.h"
#include "ts/page_pool.h"
#include "ts/plan.h"
#include "ts/prefix_cache.h"
#include "ts/step.h"

namespace ts {

class FurtherGroups {
 public:
  FurtherGroups(const SchedulerConfig& config, PrefixCache& cache);

  // Nobody is admitted into a shortage: is there enough for this request beside the running ones?
  [[nodiscard]] bool fit(const Request& request, std::int32_t running) const;
  // What the found prefix has here, as far as computing behind it reads.
  [[nodiscard]] std::vector<GroupPages> match(const PrefixMatch& found);

  // The pool of a page without which the sequence cannot go on; null if there is none.
  [[nodiscard]] PagePool* lacking(const Sequence& sequence, bool decoding);
  // Precondition: the pool, as lacking() named it, has a page.
  void give_spare(PagePool& pool, Sequence& sequence);

  // Tokens that the sequence can compute in this step with the pages there are, if one is left to
  // each of the `younger`.
  [[nodiscard]] std::int32_t room(const Sequence& sequence, std::int32_t younger) const;
  // The pages that the sequence writes in step `writer`, which computes so many tokens of it.
  void open(Sequence& sequence, std::int32_t tokens, StepId writer, Plan& plan);

  // Pages of a column that has just entered the cache.
  void attach(Sequence& sequence, std::int32_t column, const StepToken& token);
  // Pages that the sequence's next token does not read any more.
  void give_up_old(Sequence& sequence, const StepToken& token);
  void release(std::vector<GroupPages>&& groups, const StepToken& token);

  // Throws std::logic_error unless a group's every page has one owner, given what all sequences
  // hold; for tests.
  void check(const std::vector<const std::vector<GroupPages>*>& held) const;

 private:
  const SchedulerConfig& config_;
  PrefixCache& cache_;
  std::deque<PagePool> pools_;  // [group - 1]
};

// With a recurrent group a chunk of the sequence ends at the last page boundary that it reaches:
// the state there can be matched later, and only the state at a chunk's end is kept.
[[nodiscard]] std::int32_t end_at_snapshot(const Sequence& sequence, std::int32_t tokens,
                                           std::int32_t page_size);

}  // namespace ts
