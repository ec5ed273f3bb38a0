// SPDX-License-Identifier: MIT
// The policy, rule by rule.
#include "driver.h"
#include "router_view.h"
#include "spec.h"
#include "ts/scheduler.h"

using namespace ts;
using spec::Driver;
using spec::tokens;

namespace {

SchedulerConfig config() {
  return {.page_size = 4,
          .num_pages = 16,
          .max_num_seqs = 4,
          .max_model_len = 32,
          .max_num_batched_tokens = 16,
          .chunked_prefill_size = 8,
          .vocab_size = 1000};
}

SchedulerConfig with(void (*change)(SchedulerConfig&)) {
  SchedulerConfig changed = config();
  change(changed);
  return changed;
}

using Rows = std::vector<std::int32_t>;
using Ids = std::vector<RequestId>;

}  // namespace

SPEC("a prompt is computed in chunks, and the last one samples") {
  Driver driver(config());
  driver.submit(1, tokens(18), 1);
  for (const std::int32_t chunk : {8, 8, 2}) {
    EXPECT(driver.plan());
    EXPECT(driver.row_tokens() == Rows{chunk});
    EXPECT(driver.scheduler.plan_buffers().row_samples[0] == (chunk == 2));
    driver.commit();
  }
  EXPECT(driver.ended(1));
  EXPECT(!driver.plan());
}

SPEC("a step computes no more tokens than its budget") {
  Driver driver(config());
  for (RequestId id = 0; id < 3; ++id) driver.submit(id, tokens(7, 10 * static_cast<Token>(id)), 1);
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == (Rows{7, 7, 2}));
  driver.commit();
}

SPEC("decodes come first, and prefills take what is left of the budget") {
  Driver driver(config());
  driver.submit(1, tokens(3), 9);
  driver.step();
  driver.submit(2, tokens(20, 50), 1);
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == (Rows{1, 8}));
  EXPECT(driver.scheduler.plan_buffers().num_absorbed_rows == 1);
  driver.commit();
}

SPEC("rows of one token count against the step's budget") {
  Driver driver(with([](SchedulerConfig& c) { c.chunked_prefill_size = 16; }));
  for (const RequestId id : {1, 2}) driver.submit(id, tokens(3, 10 * static_cast<Token>(id)), 9);
  driver.step();
  driver.submit(3, tokens(20, 50), 1);
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == (Rows{1, 1, 14}));
  EXPECT(driver.scheduler.plan_buffers().num_tokens == 16);
  driver.commit();
}

SPEC("a prompt's tokens are expanded, however few of them a chunk has") {
  Driver driver(with([](SchedulerConfig& c) { c.max_num_batched_tokens = 9; }));
  driver.submit(1, tokens(8), 1);
  driver.submit(2, tokens(8, 50), 1);
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == (Rows{8, 1}));
  EXPECT(driver.scheduler.plan_buffers().num_absorbed_rows == 0);
  driver.commit();
}

SPEC("from absorb_from on a prompt's tokens are absorbed, and no chunk has two forms") {
  Driver driver(with([](SchedulerConfig& c) { c.absorb_from = 6; }));
  driver.submit(1, tokens(6), 9);
  driver.step();
  driver.submit(2, tokens(12, 50), 1);
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == (Rows{1, 6}));
  EXPECT(driver.scheduler.plan_buffers().num_absorbed_rows == 1);
  driver.commit();
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == (Rows{1, 6}));
  EXPECT(driver.scheduler.plan_buffers().num_absorbed_rows == 2);
  driver.commit();
}

SPEC("larger priorities are admitted first, then earlier arrivals") {
  Driver driver(with([](SchedulerConfig& c) { c.max_num_seqs = 3; }));
  driver.submit(1, tokens(1, 1), 1, 0);
  driver.submit(2, tokens(1, 2), 1, 5);
  driver.submit(3, tokens(1, 3), 1, 0);
  driver.submit(4, tokens(1, 4), 1, 5);
  EXPECT(driver.plan());
  EXPECT(driver.admitted() == (Ids{2, 4, 1}));
  driver.commit();
}

SPEC("a request that does not fit does not stop one that does") {
  Driver driver(with([](SchedulerConfig& c) { c.num_pages = 8; }));
  driver.submit(1, tokens(15), 17);  // may fill the pool
  driver.step();
  driver.submit(2, tokens(28, 100), 1);
  driver.submit(3, tokens(3, 200), 1);
  EXPECT(driver.plan());
  EXPECT(driver.admitted() == Ids{3});
  driver.commit();
}

SPEC("a request is overtaken at most max_overtakes times") {
  Driver driver(with([](SchedulerConfig& c) {
    c.num_pages = 8;
    c.max_overtakes = 3;
  }));
  driver.submit(1, tokens(15), 17);
  driver.step();
  driver.submit(2, tokens(28, 100), 1);
  int overtakes = 0;
  for (RequestId id = 3; !driver.ended(2); ++id) {
    driver.submit(id, tokens(1, 200), 1);
    driver.step();
    overtakes += driver.ended(id) && !driver.ended(2);
  }
  EXPECT(overtakes == 3);
}

SPEC("not even one step overtakes more often") {
  Driver driver(with([](SchedulerConfig& c) {
    c.num_pages = 12;
    c.max_overtakes = 2;
  }));
  driver.submit(1, tokens(15), 17);
  driver.step();
  driver.submit(2, tokens(31, 100), 1);
  for (RequestId id = 3; id < 6; ++id) driver.submit(id, tokens(1, 200), 1);
  EXPECT(driver.plan());
  EXPECT(driver.admitted() == (Ids{3, 4}));
  driver.commit();
}

SPEC("admission leaves a page for each running sequence") {
  Driver driver(with([](SchedulerConfig& c) { c.num_pages = 8; }));
  driver.submit(1, tokens(8), 9);  // two pages, soon three
  driver.step();
  driver.submit(2, tokens(24, 100), 1);  // six pages: just what is free
  EXPECT(driver.plan());
  EXPECT(driver.admitted().empty());
  driver.commit();
}

SPEC("when pages run out the youngest gives its own back, and its output does not show it") {
  Driver driver(with([](SchedulerConfig& c) { c.num_pages = 8; }));
  driver.submit(1, tokens(10), 21);
  driver.submit(2, tokens(10, 100), 21);
  driver.run();
  EXPECT(driver.scheduler.stats().retractions > 0);
  EXPECT(driver.outcomes[1].tokens.size() == 21);
  EXPECT(driver.outcomes[2].tokens.size() == 21);
  EXPECT(driver.scheduler.stats().pages_used == 0);
}

SPEC("the oldest request is never retracted") {
  Driver driver(with([](SchedulerConfig& c) { c.num_pages = 8; }));
  driver.submit(1, tokens(10), 21);
  driver.submit(2, tokens(10, 100), 21);
  std::size_t steps = 0;
  for (; !driver.ended(1); ++steps) driver.step();
  EXPECT(steps == 21 + 1);  // two chunks, then a token each step
}

SPEC("drafts leave a page to each younger sequence") {
  Driver driver(with([](SchedulerConfig& c) {
    c.num_pages = 4;
    c.max_num_seqs = 2;
    c.num_speculative_tokens = 4;
  }));
  driver.submit(1, tokens(4), 12);
  driver.submit(2, tokens(4, 100), 12);
  EXPECT(driver.step());
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == Rows({4, 4}));  // not 5: the last page is the second one's
  EXPECT(driver.scheduler.stats().retractions == 0);
}

SPEC("with a step in flight the youngest is held back, and gives way once that is committed") {
  Driver driver(with([](SchedulerConfig& c) {
    c.num_pages = 8;
    c.overlap_depth = 1;
  }));
  driver.submit(1, tokens(11), 21);
  driver.submit(2, tokens(10, 100), 21);
  EXPECT(driver.step());
  EXPECT(driver.step());
  EXPECT(driver.plan());  // both decode, in slots 0 and 1
  std::uint64_t in_flight = driver.scheduler.plan_buffers().step;
  while (driver.plan() && driver.row_tokens().size() == 2) driver.commit(in_flight++, {1, 1});
  const Column<std::int32_t>& rows = driver.scheduler.plan_buffers().row_slot;
  EXPECT(rows.size() == 0);  // the oldest needs a page, and the youngest would not
  EXPECT(driver.scheduler.stats().retractions == 0);
  driver.commit(in_flight, {1, 1});
  EXPECT(driver.plan());
  EXPECT(driver.scheduler.stats().retractions == 1);
  EXPECT(driver.row_tokens().size() == 1);
}

SPEC("a resumed request continues behind its prompt and output") {
  Driver driver(with([](SchedulerConfig& c) { c.num_pages = 10; }));
  driver.submit(1, tokens(10), 21);
  driver.submit(2, tokens(10, 100), 21);
  while (driver.scheduler.stats().retractions == 0) driver.step();
  const auto produced = static_cast<std::int32_t>(driver.outcomes[2].tokens.size());
  do {
    EXPECT(driver.plan());
    if (driver.admitted() == Ids{2}) break;
    driver.commit();
  } while (true);
  const Plan& plan = driver.scheduler.plan_buffers();
  EXPECT(plan.admitted_prompt_tokens[0] == 10);
  EXPECT(plan.admitted_offset[1] == 10 + produced);
  EXPECT(plan.row_start[plan.row_start.size() - 1] >= 8);  // its full pages stayed cached
  driver.commit();
  driver.run();
  EXPECT(driver.outcomes[2].cached_tokens == 0);  // as at first admission
}

SPEC("a cached prompt is computed from its last token on") {
  Driver driver(config());
  driver.submit(1, tokens(16), 1);
  driver.run();
  driver.submit(2, tokens(16), 1);
  EXPECT(driver.plan());
  EXPECT(driver.row_tokens() == Rows{4});  // whole pages match, one token must be left
  driver.commit();
  EXPECT(driver.outcomes[2].cached_tokens == 12);
  EXPECT(driver.scheduler.stats().prefix_query_tokens == 32);
  EXPECT(driver.scheduler.stats().prefix_hit_tokens == 12);
}

SPEC("the pages of the output are cached for the next turn, as far as they are computed") {
  Driver driver(config());
  driver.submit(1, tokens(5, 100), 8);  // computes 12 of its 13 tokens
  driver.run();
  std::vector<Token> next = tokens(5, 100);
  next.insert(next.end(), driver.outcomes[1].tokens.begin(), driver.outcomes[1].tokens.end());
  next.push_back(7);
  driver.submit(2, next, 1);
  driver.run();
  EXPECT(driver.outcomes[2].cached_tokens == 12);
}

SPEC("without prefix caching nothing is shared or announced") {
  Driver driver(with([](SchedulerConfig& c) { c.enable_prefix_caching = false; }));
  for (const RequestId id : {1, 2}) {
    driver.submit(id, tokens(16), 1);
    driver.run();
    EXPECT(driver.outcomes[id].cached_tokens == 0);
  }
  EXPECT(driver.scheduler.stats().pages_free == 16);
  EXPECT(driver.scheduler.drain_kv_events(0).empty());
}

SPEC("a prefix that is being computed is waited for, not computed twice") {
  Driver driver(config());
  driver.submit(1, tokens(16), 9);
  driver.submit(2, tokens(16), 9);
  driver.submit(3, tokens(2, 50), 9);
  EXPECT(driver.plan());
  EXPECT(driver.admitted() == (Ids{1, 3}));
  driver.commit();
  EXPECT(driver.plan());
  EXPECT(driver.admitted().empty());
  driver.commit();
  EXPECT(driver.plan());
  EXPECT(driver.admitted() == Ids{2});
  driver.commit();
  EXPECT(driver.outcomes[2].cached_tokens == 12);
}

SPEC("what somebody computes is waited for up to where the prompts part") {
  Driver driver(config());
  std::vector<Token> parts = tokens(10);
  parts.insert(parts.end(), {900, 901, 902, 903});
  driver.submit(1, tokens(31), 1);
  driver.submit(2, parts, 1);
  driver.submit(3, tokens(31), 1);
  driver.step();  // two pages
  EXPECT(driver.plan());
  EXPECT(driver.admitted() == Ids{2});
  driver.commit();
  driver.run();
  EXPECT(driver.outcomes[2].cached_tokens == 8);
  EXPECT(driver.outcomes[3].cached_tokens == 28);
}

SPEC("a request takes no page for what somebody holds, and waits if one is lacking for the rest") {
  for (const std::int32_t own : {6, 7, 8}) {
    Driver driver(with([](SchedulerConfig& c) { c.num_pages = 8; }));
    driver.submit(1, tokens(18), 2);  // five pages
    driver.step();
    driver.step();
    driver.step();
    std::vector<Token> prompt = tokens(17);  // four of them
    for (Token token = 0; token < own; ++token) prompt.push_back(900 + token);
    driver.submit(2, prompt, 1);
    EXPECT(driver.plan());
    // Two pages are available beside the one that the first may need: for 24 tokens.
    EXPECT(driver.admitted() == (own <= 7 ? Ids{2} : Ids{}));
    driver.commit();
  }
}

SPEC("what is evicted while a request waits is computed again") {
  Driver driver(with([](SchedulerConfig& c) {
    c.num_pages = 8;
    c.max_num_seqs = 1;
  }));
  driver.submit(1, tokens(9), 1);
  driver.run();
  driver.submit(2, tokens(28, 100), 1, 1);  // seven pages: one of two cached ones goes
  driver.submit(3, tokens(9), 1);
  driver.run();
  EXPECT(driver.outcomes[3].cached_tokens == 4);
}

SPEC("two sequences that computed the same content share one page from then on") {
  Driver driver(config());
  driver.submit(1, tokens(8), 9);
  driver.step();
  driver.submit(2, tokens(8), 9);  // computes its second page for the last token's sake
  driver.step();
  EXPECT(driver.scheduler.stats().pages_used == 3);
  EXPECT(driver.plan());
  EXPECT(driver.scheduler.plan_buffers().page_patch.size() == 2);  // the replaced page, a new one
  driver.commit();
}

SPEC("a decode step patches the block table only where a page begins") {
  Driver driver(config());
  driver.submit(1, tokens(9), 20);
  driver.step();
  driver.step();
  for (std::int32_t position = 9; position < 24; ++position) {
    EXPECT(driver.plan());
    EXPECT(driver.scheduler.plan_buffers().row_start[0] == position);
    EXPECT(driver.scheduler.plan_buffers().page_patch.size() == (position % 4 == 0 ? 1U : 0U));
    EXPECT(driver.scheduler.plan_buffers().admitted_tokens.size() == 0);
    driver.commit();
  }
}

SPEC("an output ends at the context limit") {
  Driver driver(config());
  driver.submit(1, tokens(30), 1000);
  driver.run();
  EXPECT(driver.outcomes[1].tokens.size() == 2);
  EXPECT(driver.outcomes[1].finish == FinishReason::kLength);
}

SPEC("an aborted request that waits or rests is gone at once") {
  Driver driver(config());
  driver.submit(1, tokens(5), 9);
  EXPECT(driver.abort(1));
  EXPECT(!driver.abort(1));
  driver.submit(1, tokens(5), 9);
  driver.step();
  EXPECT(driver.abort(1));
  EXPECT(driver.scheduler.stats().pages_used == 0);
  EXPECT(!driver.plan());
}

SPEC("the pages of a request aborted in flight are free when the step is committed") {
  Driver driver(config());
  driver.submit(1, tokens(5), 9);
  driver.submit(2, tokens(5, 50), 9);
  EXPECT(driver.plan());
  EXPECT(driver.abort(1));
  EXPECT(!driver.abort(1));
  EXPECT(driver.scheduler.stats().pages_used == 4);
  driver.commit();
  EXPECT(driver.scheduler.stats().pages_used == 2);
  EXPECT(driver.outcomes.count(1) == 0);
  EXPECT(driver.scheduler.output_buffers().row[0] == 1);  // the second sampling row
}

SPEC("an id is free again once its request has ended, even while its pages drain") {
  Driver driver(config());
  driver.submit(1, tokens(5), 9);
  EXPECT_THROWS(std::invalid_argument, "request_id is 1", driver.submit(1, tokens(5), 9));
  EXPECT(driver.plan());
  EXPECT(driver.abort(1));
  driver.submit(1, tokens(5, 50), 2);
  driver.commit();
  driver.run();
  EXPECT(driver.outcomes[1].tokens.size() == 2);
}

SPEC("clearing the cache waits until nobody holds pages") {
  Driver driver(config());
  driver.submit(1, tokens(8), 9);
  driver.step();
  EXPECT(!driver.scheduler.clear_prefix_cache());
  driver.run();
  EXPECT(driver.scheduler.stats().pages_cached > 0);
  (void)driver.scheduler.drain_kv_events(0);
  EXPECT(driver.scheduler.clear_prefix_cache());
  EXPECT(driver.scheduler.stats().pages_free == 16);
  const std::string payload = driver.scheduler.drain_kv_events(0);
  EXPECT(payload.find("AllBlocksCleared") != std::string::npos);
  EXPECT(payload.find("BlockRemoved") == std::string::npos);
}

SPEC("an announcement forgets what was not drained, and tells the cache from its first page") {
  Driver driver(config());
  driver.submit(1, tokens(9), 1);
  driver.run();
  driver.scheduler.announce_cache();
  const std::string payload = driver.scheduler.drain_kv_events(0);
  spec::RouterView router;
  router.apply(payload);
  EXPECT(router.blocks() == static_cast<std::size_t>(driver.scheduler.stats().pages_cached));
  EXPECT(payload.find("AllBlocksCleared") != std::string::npos);
  EXPECT(payload.find("BlockStored") == payload.rfind("BlockStored"));  // one chain, one event
  EXPECT(driver.scheduler.drain_kv_events(0).empty());
}

SPEC("nothing is announced where events are off") {
  SchedulerConfig silent = config();
  silent.enable_kv_events = false;
  Driver driver(silent);
  driver.submit(1, tokens(9), 1);
  driver.run();
  driver.scheduler.announce_cache();
  EXPECT(driver.scheduler.drain_kv_events(0).empty());
}

SPEC("calls out of order are refused") {
  Driver driver(config());
  EXPECT_THROWS(std::runtime_error, "no step is in flight", driver.scheduler.commit(1, {}));
  driver.submit(1, tokens(5), 9);
  EXPECT(driver.plan());
  EXPECT_THROWS(std::runtime_error, "step 1 is in flight", driver.plan());
  EXPECT_THROWS(std::invalid_argument, "step is 2", driver.scheduler.commit(2, {}));
  EXPECT_THROWS(std::invalid_argument, "token_ids has 0 entries", driver.scheduler.commit(1, {}));
  EXPECT_THROWS(std::invalid_argument, "token_ids[0] is 1000", driver.commit(1000));
  driver.commit();
  EXPECT_THROWS(std::runtime_error, "no step is in flight", driver.scheduler.commit(1, {}));
  EXPECT(driver.outcomes[1].tokens.size() == 1);
}

SPEC("a request that can never fit is refused with value, limit and way out") {
  Driver driver(with([](SchedulerConfig& c) { c.num_pages = 4; }));
  EXPECT_THROWS(std::invalid_argument, "prompt has 32 tokens", driver.submit(1, tokens(32), 1));
  EXPECT_THROWS(std::invalid_argument, "need 5 pages, but the pool has 4",
                driver.submit(1, tokens(10), 8));
  EXPECT_THROWS(std::invalid_argument, "lower max_tokens to 7", driver.submit(1, tokens(10), 8));
  EXPECT_THROWS(std::invalid_argument, "shorten the prompt", driver.submit(1, tokens(17), 1));
  driver.submit(1, tokens(10), 7);
  driver.run();
  EXPECT(driver.outcomes[1].tokens.size() == 7);
}

SPEC("a scheduler can be destroyed while a step is in flight") {
  Driver driver(config());
  driver.submit(1, tokens(8), 9);
  driver.submit(2, tokens(8, 20), 9);
  driver.step();
  driver.submit(3, tokens(30, 40), 2);
  EXPECT(driver.plan());
}

SPEC("contradictory sizes are refused") {
  EXPECT_THROWS(std::invalid_argument, "max_num_batched_tokens is 3",
                Scheduler(with([](SchedulerConfig& c) { c.max_num_batched_tokens = 3; })));
  EXPECT_THROWS(std::invalid_argument, "page_size is 0",
                Scheduler(with([](SchedulerConfig& c) { c.page_size = 0; })));
}
