// SPDX-License-Identifier: MIT
// The host tier, as the scheduler uses it, rule by rule.
#include <algorithm>
#include <vector>

#include "engine.h"
#include "router_view.h"
#include "spec.h"
#include "ts/scheduler.h"

using namespace ts;
using spec::Engine;
using spec::output_after;
using spec::tokens;

namespace {

SchedulerConfig config() {
  return {.page_size = 4,
          .num_pages = 9,
          .max_num_seqs = 4,
          .max_model_len = 36,
          .max_num_batched_tokens = 16,
          .chunked_prefill_size = 8,
          .vocab_size = 1000,
          .num_host_pages = 32};
}

// Serves a request that needs the whole pool, so that the device caches nothing else.
void evict_all(Engine& engine, bool transfers_end_well = true) {
  static Token unheard_of = 500;
  engine.submit(1000, tokens(35, unheard_of), 1);
  unheard_of = unheard_of == 900 ? 500 : unheard_of + 40;
  engine.run(transfers_end_well);
}

// Serves a prompt of three pages and one token; its pages are then in the host tier alone.
const std::vector<Token> kPrompt = tokens(13);
void store_prompt(Engine& engine) {
  engine.submit(1, kPrompt, 1);
  engine.run();
  evict_all(engine);
}

using Ids = std::vector<RequestId>;

}  // namespace

SPEC("an evicted prefix comes back by a load and counts as cached") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, kPrompt, 3);
  engine.run();
  EXPECT(engine.loads == 1);
  EXPECT(engine.outcomes[2].cached_tokens == 12);
  EXPECT(engine.scheduler.stats().prefix_hit_tokens == 12);
  EXPECT(engine.outcomes[2].tokens == output_after(kPrompt, 3, 1000));
}

SPEC("a request that is loading has no row until its pages are there") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, kPrompt, 3);
  EXPECT(engine.plan());
  EXPECT(engine.admitted() == Ids{2});
  EXPECT(engine.row_tokens().empty());
  engine.commit();
  EXPECT(!engine.plan());
  EXPECT(engine.scheduler.stats().loading == 1);
  engine.end_transfers();
  EXPECT(engine.scheduler.stats().loading == 0);
  EXPECT(engine.plan());
  EXPECT(engine.row_tokens() == std::vector<std::int32_t>{1});
  engine.commit();
}

SPEC("a request loads while others decode") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, tokens(2, 100), 6);
  engine.step();
  engine.submit(3, kPrompt, 1);
  while (!engine.ended(2)) EXPECT(engine.step());
  EXPECT(engine.scheduler.stats().loading == 1);
  engine.run();
  EXPECT(engine.outcomes[3].cached_tokens == 12);
}

SPEC("a load may end before the step that began it is committed") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, kPrompt, 1);
  EXPECT(engine.plan());
  const Plan& plan = engine.scheduler.plan_buffers();
  engine.complete_transfer(plan.transfer_id[plan.transfer_id.size() - 1]);
  engine.Driver::commit();
  EXPECT(engine.plan());
  EXPECT(engine.row_tokens() == std::vector<std::int32_t>{1});
}

SPEC("a load reserves what its whole prefill needs, so that two cannot wait for each other") {
  Engine engine(config());
  for (const Token first : {0, 100}) engine.submit(RequestId(first), tokens(17, first), 1);
  engine.run();
  evict_all(engine);
  // Four pages to load, seven in all, of nine: each could load, and then neither go on.
  for (const Token first : {0, 100}) engine.submit(RequestId(first), tokens(28, first), 1);
  EXPECT(engine.plan());
  EXPECT(engine.admitted() == Ids{0});
  engine.commit();
  engine.run();
  EXPECT(engine.outcomes[0].tokens.size() == 2 && engine.outcomes[100].tokens.size() == 2);
  EXPECT(engine.loads == 2);
  EXPECT(engine.scheduler.stats().retractions == 0);
}

SPEC("a prefix that is being loaded is waited for, not loaded twice") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, kPrompt, 1);
  engine.step();
  engine.submit(3, kPrompt, 1);
  EXPECT(!engine.plan());
  engine.end_transfers();
  EXPECT(engine.plan());
  EXPECT(engine.admitted() == Ids{3});
  engine.commit();
  engine.run();
  EXPECT(engine.outcomes[3].cached_tokens == 12);
  EXPECT(engine.loads == 1);
}

SPEC("what a failed load would have brought is computed, and does not count as cached") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, kPrompt, 3);
  engine.run(false);
  EXPECT(engine.loads == 1);
  EXPECT(engine.outcomes[2].cached_tokens == 0);
  EXPECT(engine.scheduler.stats().prefix_hit_tokens == 0);
  EXPECT(engine.outcomes[2].tokens == output_after(kPrompt, 3, 1000));
}

SPEC("a failed load does not touch what the device had of the prefix") {
  Engine engine(config());
  engine.submit(1, kPrompt, 1);
  engine.run();
  engine.submit(2, tokens(28, 100), 1);  // evicts the last page of the prefix
  engine.run();
  engine.submit(3, kPrompt, 1);
  engine.run(false);
  EXPECT(engine.loads == 1);
  EXPECT(engine.outcomes[3].cached_tokens == 8);
  EXPECT(engine.outcomes[3].tokens == output_after(kPrompt, 1, 1000));
}

SPEC("a failed store loses its content and nothing else") {
  Engine engine(config());
  store_prompt(engine);
  const std::vector<Token> lost = tokens(13, 100);
  engine.submit(2, lost, 1);
  engine.run();
  evict_all(engine, false);
  engine.submit(3, lost, 1);
  engine.run();
  EXPECT(engine.outcomes[3].cached_tokens == 0);
  engine.submit(4, kPrompt, 1);
  engine.run();
  EXPECT(engine.outcomes[4].cached_tokens == 12);
}

SPEC("the pages of a request aborted while it loads are free when the load ends") {
  for (const bool ok : {true, false}) {
    Engine engine(config());
    store_prompt(engine);
    engine.submit(2, kPrompt, 1);
    engine.step();
    EXPECT(engine.abort(2));
    EXPECT(engine.scheduler.stats().loading == 0);
    EXPECT(engine.scheduler.stats().pages_used == 3);
    EXPECT(!engine.scheduler.clear_prefix_cache());
    engine.end_transfers(ok);
    EXPECT(engine.scheduler.stats().pages_used == 0);
    EXPECT(!engine.plan());
    EXPECT(engine.scheduler.clear_prefix_cache());
  }
}

SPEC("what a plan's loads evict is stored beside the steps, and listed before the loads") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, kPrompt, 1);
  EXPECT(engine.plan());
  const Plan& plan = engine.scheduler.plan_buffers();
  EXPECT(plan.transfer_id.size() == 2);
  EXPECT(plan.transfer_kind[0] == static_cast<std::uint8_t>(TransferKind::kDisplace));
  EXPECT(plan.transfer_kind[1] == static_cast<std::uint8_t>(TransferKind::kLoad));
  EXPECT(plan.transfer_offset[2] - plan.transfer_offset[1] == 3);
  engine.commit();
  engine.run();
}

SPEC("a step waits for the stores of what its rows write over, and for no other") {
  Engine engine(config());
  store_prompt(engine);  // the device is full of what evicted it
  engine.submit(2, kPrompt, 1);
  engine.submit(3, tokens(9, 300), 1);
  EXPECT(engine.plan());
  const Plan& plan = engine.scheduler.plan_buffers();
  std::vector<TransferKind> kinds;
  for (std::size_t i = 0; i < plan.transfer_kind.size(); ++i) {
    kinds.push_back(static_cast<TransferKind>(plan.transfer_kind[i]));
  }
  EXPECT(kinds ==
         (std::vector{TransferKind::kStore, TransferKind::kDisplace, TransferKind::kLoad}));
  const auto pages = [&plan](std::size_t transfer) {
    return std::vector<PageId>(
        plan.transfer_device_page.data() + plan.transfer_offset[transfer],
        plan.transfer_device_page.data() + plan.transfer_offset[transfer + 1]);
  };
  const std::vector<PageId> displaced = pages(1);
  const std::vector<PageId> loaded = pages(2);
  for (const PageId page : displaced) EXPECT(std::ranges::find(loaded, page) != loaded.end());
  for (const PageId page : pages(0)) EXPECT(std::ranges::find(loaded, page) == loaded.end());
  engine.commit();
  engine.run();
  EXPECT(engine.outcomes[2].tokens == output_after(kPrompt, 1, 1000));
}

SPEC(
    "what a decode row writes over is stored before it, though a load of the plan displaces more") {
  Engine engine(config());
  store_prompt(engine);
  engine.submit(2, tokens(3, 300), 10);
  engine.step();
  engine.step();
  engine.submit(3, kPrompt, 1);
  EXPECT(engine.plan());  // the row opens a page
  const Plan& plan = engine.scheduler.plan_buffers();
  EXPECT(plan.row_slot.size() == 1 && plan.transfer_id.size() == 3);
  EXPECT(plan.transfer_kind[0] == static_cast<std::uint8_t>(TransferKind::kStore));
  EXPECT(plan.transfer_offset[1] == 1);
  EXPECT(plan.transfer_device_page[0] == plan.page_patch.back().page);
  EXPECT(plan.transfer_kind[1] == static_cast<std::uint8_t>(TransferKind::kDisplace));
  engine.commit();
  engine.run();
  EXPECT(engine.outcomes[3].cached_tokens == 12);
}

SPEC("what a load displaces comes back, though it is stored as late as the load ends") {
  Engine engine(config());
  const std::vector<Token> other = tokens(33, 100);
  store_prompt(engine);
  engine.submit(2, other, 1);
  engine.run();
  engine.submit(3, kPrompt, 1);  // displaces pages of the other one
  engine.step();
  while (engine.end_last_transfer()) {  // the load's end is told before the store's
  }
  engine.run();
  engine.submit(4, other, 1);
  engine.run();
  EXPECT(engine.outcomes[4].cached_tokens == 32);
  EXPECT(engine.outcomes[4].tokens == output_after(other, 1, 1000));
}

SPEC("what the device evicts is stored before anybody waits for it") {
  Engine engine(config());
  engine.submit(1, kPrompt, 1);
  engine.run();
  engine.submit(2, tokens(35, 100), 1);
  while (!engine.ended(2)) EXPECT(engine.step());  // no transfer has ended yet
  EXPECT(engine.stores > 0);
  EXPECT(engine.scheduler.stats().host_pages_cached == 0);
  engine.end_transfers();
  EXPECT(engine.scheduler.stats().host_pages_cached == 3);
}

SPEC("a store that ends after the cache was cleared brings nothing back") {
  Engine engine(config());
  engine.submit(1, kPrompt, 1);
  engine.run();
  engine.submit(2, tokens(35, 100), 1);
  while (!engine.ended(2)) engine.step();
  EXPECT(engine.scheduler.clear_prefix_cache());
  engine.end_transfers();
  EXPECT(engine.scheduler.stats().host_pages_cached == 0);
  engine.submit(3, kPrompt, 1);
  engine.run();
  EXPECT(engine.outcomes[3].cached_tokens == 0);
}

SPEC("a page that was loaded in vain is free at once") {
  Engine engine(config());
  engine.submit(1, tokens(8), 6);
  engine.run();
  evict_all(engine);
  engine.submit(2, tokens(8), 6);
  engine.step();
  engine.end_transfers();
  while (engine.outcomes[2].tokens.size() < 3) engine.step();
  std::vector<Token> next = tokens(8);
  next.insert(next.end(), engine.outcomes[1].tokens.begin(), engine.outcomes[1].tokens.end());
  engine.submit(3, next, 1);  // loads what the other one is about to decode
  while (!engine.ended(2)) engine.step();
  EXPECT(engine.scheduler.stats().loading == 1);
  engine.end_transfers();
  engine.abort(3);
  EXPECT(engine.scheduler.stats().pages_used == 0);
}

SPEC("an announcement names the pages of both tiers") {
  Engine engine(config());
  store_prompt(engine);
  engine.scheduler.announce_cache();
  const std::string payload = engine.scheduler.drain_kv_events(0);
  spec::RouterView router;
  router.apply(payload);
  const Stats stats = engine.scheduler.stats();
  EXPECT(stats.host_pages_cached > 0);
  EXPECT(router.blocks() == static_cast<std::size_t>(stats.pages_cached + stats.host_pages_cached));
}

SPEC("only a transfer under way can end") {
  Engine engine(config());
  store_prompt(engine);
  EXPECT_THROWS(std::invalid_argument, "transfer_id is 1", engine.complete_transfer(1));
  EXPECT_THROWS(std::invalid_argument, "transfer_id is 77", engine.complete_transfer(77));
}

SPEC("a scheduler can be destroyed while transfers are under way") {
  Engine engine(config());
  store_prompt(engine);
  for (const RequestId id : {2, 3}) engine.submit(id, tokens(13 - static_cast<int>(id % 2)), 1);
  EXPECT(engine.plan());
  engine.abort(2);
}
