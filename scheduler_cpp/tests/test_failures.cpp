// SPDX-License-Identifier: MIT
// Requests for which no token could be sampled: they end alone, and what may be spoilt is not
// found.
#include "engine.h"
#include "spec.h"

using namespace ts;
using spec::Driver;
using spec::tokens;

namespace {

SchedulerConfig config() {
  return {.page_size = 4,
          .num_pages = 32,
          .max_num_seqs = 4,
          .max_model_len = 64,
          .max_num_batched_tokens = 16,
          .chunked_prefill_size = 8,
          .vocab_size = 1000};
}

SchedulerConfig with(void (*change)(SchedulerConfig&)) {
  SchedulerConfig changed = config();
  change(changed);
  return changed;
}

// The prompt tokens that a request of these tokens finds cached.
std::int32_t found(Driver& driver, RequestId id, const std::vector<Token>& prompt) {
  driver.submit(id, prompt, 1);
  driver.run();
  return driver.outcomes[id].cached_tokens;
}

}  // namespace

SPEC("a request whose next token could not be sampled fails, and its neighbour does not notice") {
  Driver driver(config());
  driver.submit(1, tokens(3), 9);
  driver.submit(2, tokens(3, 100), 2);
  EXPECT(driver.plan());
  driver.commit({kNoToken, 7});
  EXPECT(driver.outcomes[1].finish == FinishReason::kFailed);
  EXPECT(driver.outcomes[1].tokens.empty());
  driver.run();
  EXPECT(driver.outcomes[2].finish == FinishReason::kLength);
  EXPECT(driver.outcomes[2].tokens == (std::vector<Token>{7, 1}));
  EXPECT(driver.scheduler.stats().pages_used == 0);
}

SPEC("a failed request is reported once, without a token") {
  Driver driver(config());
  driver.submit(1, tokens(3), 9);
  driver.step(5);
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  const Output& output = driver.scheduler.output_buffers();
  EXPECT(output.request.size() == 1 && output.request[0] == 1);
  EXPECT(output.token[0] == kNoToken && output.row[0] == 0);
  EXPECT(driver.outcomes[1].tokens == std::vector<Token>{5});
  EXPECT(!driver.plan());
}

SPEC("behind a draft that could not be sampled nothing is kept") {
  Driver driver(with([](SchedulerConfig& c) { c.num_speculative_tokens = 3; }));
  driver.submit(1, tokens(3), 20);
  driver.step();
  EXPECT(driver.plan());
  driver.commit(driver.scheduler.plan_buffers().step, {5, kNoToken, 6}, {3});
  EXPECT(driver.outcomes[1].finish == FinishReason::kFailed);
  EXPECT(driver.outcomes[1].tokens == (std::vector<Token>{1, 5}));
}

SPEC("a request that fails while the next step names it drains with that step") {
  Driver driver(with([](SchedulerConfig& c) { c.overlap_depth = 1; }));
  driver.submit(1, tokens(3), 9);
  EXPECT(driver.plan());
  EXPECT(driver.plan());
  driver.commit(1, {kNoToken});
  EXPECT(driver.ended(1));
  EXPECT(driver.scheduler.stats().pages_used > 0);
  EXPECT(!driver.plan());
  driver.commit(2, {kNoToken});
  EXPECT(driver.scheduler.output_buffers().request.size() == 0);
  EXPECT(driver.scheduler.stats().pages_used == 0);
}

SPEC("a prefill that fails is not sent to its peer") {
  Driver driver(config());
  const std::vector<Token> prompt = tokens(3);
  driver.submit({.id = 1,
                 .prompt = prompt,
                 .max_tokens = 1,
                 .eos_token_ids = {},
                 .stop_token_ids = {},
                 .cache_salt = {},
                 .params = {},
                 .role = Role::kPrefill});
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  EXPECT(driver.outcomes[1].finish == FinishReason::kFailed);
  EXPECT(!driver.plan());
  EXPECT(driver.scheduler.stats().pages_used == 0);
}

SPEC("nobody finds what a request computed that failed with its first token") {
  Driver driver(config());
  driver.submit(1, tokens(18), 1);
  driver.step();
  driver.step();
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  EXPECT(driver.scheduler.stats().pages_cached == 0);
  EXPECT(found(driver, 2, tokens(18)) == 0);
  EXPECT(found(driver, 3, tokens(18)) == 16);
}

SPEC("what is withdrawn while a request waits is computed again") {
  Driver driver(with([](SchedulerConfig& c) { c.max_num_seqs = 1; }));
  driver.submit(1, tokens(18), 1);
  driver.submit(2, tokens(18), 1);
  driver.step();
  driver.step();
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  driver.run();
  EXPECT(driver.outcomes[2].cached_tokens == 0);
}

SPEC("what a request computed before its last good token stays") {
  Driver driver(config());
  driver.submit(1, tokens(10), 20);
  for (int i = 0; i < 8; ++i) driver.step();  // two chunks and six more tokens
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  EXPECT(driver.outcomes[1].tokens.size() == 7);
  EXPECT(found(driver, 2, tokens(10)) == 8);
}

SPEC("a request that fails takes nothing from those whose prefix it shares") {
  Driver driver(config());
  EXPECT(found(driver, 1, tokens(12)) == 0);
  std::vector<Token> longer = tokens(12);
  longer.push_back(500);
  driver.submit(2, longer, 1);
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  EXPECT(found(driver, 3, tokens(13)) == 12);
}

SPEC("what an aborted request left unproven goes when somebody fails behind it") {
  Driver driver(config());
  driver.submit(1, tokens(30), 1);
  driver.step();  // its first chunk is cached
  driver.abort(1);
  driver.submit(2, tokens(10), 1);
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  EXPECT(driver.outcomes[2].cached_tokens == 8);
  EXPECT(found(driver, 3, tokens(10)) == 0);
}

SPEC("who builds on what was withdrawn goes on, but adds nothing to the cache") {
  Driver driver(with([](SchedulerConfig& c) { c.max_num_batched_tokens = 24; }));
  driver.submit(1, tokens(30), 8);
  driver.step();  // caches 8 tokens
  driver.submit(2, tokens(10), 1);
  EXPECT(driver.plan());  // finds them
  EXPECT(driver.scheduler.plan_buffers().row_slot.size() == 2);
  driver.commit({kNoToken});
  EXPECT(driver.outcomes[2].finish == FinishReason::kFailed);
  EXPECT(driver.outcomes[2].cached_tokens == 8);
  driver.run();
  EXPECT(driver.outcomes[1].tokens.size() == 8);
  EXPECT(driver.scheduler.stats().pages_cached == 0);
  EXPECT(driver.scheduler.stats().pages_free == config().num_pages);
}

SPEC("what was withdrawn leaves the host tier, and a store under way brings nothing there") {
  spec::Engine engine(with([](SchedulerConfig& c) {
    c.num_pages = 8;
    c.num_host_pages = 16;
    c.max_model_len = 32;
  }));
  engine.submit(1, tokens(30), 1);
  engine.step();  // its first chunk is cached, and nothing proves it
  engine.abort(1);
  engine.submit(2, tokens(30, 100), 1);  // evicts it
  engine.run();
  EXPECT(engine.stores > 0);
  engine.submit(3, tokens(10), 1);
  EXPECT(engine.plan());  // loads it
  engine.commit();
  engine.end_transfers();
  EXPECT(engine.loads > 0);
  EXPECT(engine.plan());
  engine.commit(3);
  EXPECT(engine.outcomes[3].cached_tokens == 8);
  engine.submit(4, tokens(10), 1);
  engine.run();
  EXPECT(engine.outcomes[4].cached_tokens == 0);
}

SPEC("a page that took another one's place is proven by the first step that reads it") {
  Driver driver(with([](SchedulerConfig& c) { c.absorb_from = 0; }));
  driver.submit(1, tokens(2), 3);
  driver.step(2);
  driver.submit(2, tokens(20), 1);
  driver.step(3);  // caches 8 tokens of the second, which nothing proves
  driver.abort(2);
  driver.step(9);  // the first has computed the same page, and gets that one for it
  EXPECT(driver.outcomes[1].tokens == (std::vector<Token>{2, 3, 9}));
  driver.submit(3, tokens(6), 1);
  EXPECT(driver.plan());
  driver.commit({kNoToken});
  EXPECT(driver.outcomes[3].cached_tokens == 4);
  EXPECT(found(driver, 4, tokens(6)) == 0);
}

SPEC("what is withdrawn while somebody loads it does not enter the cache again") {
  spec::Engine engine(with([](SchedulerConfig& c) {
    c.num_pages = 9;
    c.num_host_pages = 16;
    c.max_model_len = 32;
  }));
  engine.submit(1, tokens(30), 1);
  engine.step();
  engine.abort(1);  // two pages are cached, and nothing proves them
  engine.submit(2, tokens(30, 100), 1);
  engine.run();  // evicts the second of them, to the host
  engine.submit(3, tokens(6), 1);
  engine.submit(4, tokens(10), 3);
  EXPECT(engine.plan());
  EXPECT(engine.scheduler.stats().loading == 1);
  engine.commit(3);  // the first one's token cannot be sampled
  EXPECT(engine.outcomes[3].finish == FinishReason::kFailed);
  engine.run();
  EXPECT(engine.outcomes[4].tokens == spec::output_after(tokens(10), 3, 1000));
  engine.submit(5, tokens(10), 1);
  engine.run();
  EXPECT(engine.outcomes[5].cached_tokens == 0);
}
