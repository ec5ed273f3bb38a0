// SPDX-License-Identifier: MIT
// Further cache groups, as the scheduler uses them, rule by rule.
#include "engine.h"
#include "spec.h"
#include "ts/scheduler.h"

using namespace ts;
using spec::Engine;
using spec::output_after;
using spec::tokens;

namespace {

SchedulerConfig with(const std::vector<CacheGroup>& groups) {
  return {.page_size = 4,
          .num_pages = 32,
          .max_num_seqs = 4,
          .max_model_len = 40,
          .max_num_batched_tokens = 16,
          .chunked_prefill_size = 8,
          .vocab_size = 1000,
          .cache_groups = groups};
}

CacheGroup window(std::int32_t tokens, std::int32_t num_pages) {
  return {CacheGroupKind::kSlidingWindow, num_pages, tokens};
}
CacheGroup recurrent(std::int32_t num_pages) {
  return {CacheGroupKind::kRecurrent, num_pages, 0};
}

// A conversation so far, and what is asked next.
std::vector<Token> next_turn(Engine& engine, std::vector<Token> prompt, RequestId answered) {
  const std::vector<Token>& answer = engine.outcomes[answered].tokens;
  prompt.insert(prompt.end(), answer.begin(), answer.end());
  prompt.insert(prompt.end(), {900, 901, 902});
  return prompt;
}

}  // namespace

SPEC("pages behind the window are free while the sequence runs") {
  Engine engine(with({window(8, 5)}));
  engine.submit(1, tokens(5), 30);
  std::size_t opened = 0;
  while (engine.step()) opened += engine.scheduler.plan_buffers().group_page_patch[0].size();
  EXPECT(opened == 9);
  EXPECT(engine.scheduler.stats().retractions == 0);
  EXPECT(engine.outcomes[1].tokens == output_after(tokens(5), 30, 1000));
}

SPEC("a long decode leaves the window's pages to others") {
  Engine engine(with({window(4, 9)}));
  engine.submit(1, tokens(20), 20);
  engine.submit(2, tokens(20, 100), 20);
  engine.run();
  EXPECT(engine.scheduler.stats().retractions == 0);  // twenty columns, of nine pages
  EXPECT(engine.outcomes[2].tokens == output_after(tokens(20, 100), 20, 1000));
}

SPEC("a match needs a window's last pages only") {
  Engine engine(with({window(4, 4)}));
  engine.submit(1, tokens(20), 1);  // five columns, of four pages
  engine.run();
  engine.submit(2, tokens(24), 1);
  engine.run();
  EXPECT(engine.outcomes[2].cached_tokens == 20);
}

SPEC("a prefix whose window is gone is computed") {
  Engine engine(with({window(4, 4)}));
  engine.submit(1, tokens(20), 1);
  engine.run();
  engine.submit(2, tokens(20, 100), 1);
  engine.run();
  engine.submit(3, tokens(24), 1);
  engine.run();
  EXPECT(engine.outcomes[3].cached_tokens == 0);
  EXPECT(engine.outcomes[3].tokens == output_after(tokens(24), 1, 1000));
}

SPEC("with recurrent states a second turn continues from the last page boundary") {
  Engine engine(with({recurrent(12)}));
  engine.submit(1, tokens(10), 5);  // 14 tokens are computed
  engine.run();
  const std::vector<Token> second = next_turn(engine, tokens(10), 1);
  engine.submit(2, second, 3);
  engine.run();
  EXPECT(engine.outcomes[2].cached_tokens == 12);
  EXPECT(engine.outcomes[2].tokens == output_after(second, 3, 1000));
}

SPEC("with recurrent states a chunk ends at a page boundary if it reaches one") {
  Engine engine(with({recurrent(12)}));
  engine.submit(1, tokens(10), 1);
  for (const std::int32_t chunk : {8, 2}) {
    EXPECT(engine.plan());
    EXPECT(engine.row_tokens() == std::vector<std::int32_t>{chunk});
    engine.commit();
  }
}

SPEC("a joint match stops where every group can go on") {
  Engine engine(with({window(4, 12), recurrent(12)}));
  engine.submit(1, tokens(20), 1);  // states at 8, 16 and 20 tokens
  engine.run();
  std::vector<Token> other = tokens(14);
  other.push_back(900);
  engine.submit(2, other, 2);
  engine.run();
  EXPECT(engine.outcomes[2].cached_tokens == 8);  // full attention has 12 of them
  EXPECT(engine.outcomes[2].tokens == output_after(other, 2, 1000));
}

SPEC("when a further group's pages run out the youngest gives way") {
  Engine engine(with({window(12, 6)}));
  for (const Token first : {0, 100}) engine.submit(RequestId(first), tokens(4, first), 20);
  int steps = 0;
  for (; !engine.ended(0); ++steps) EXPECT(engine.step());
  EXPECT(steps == 20);  // the oldest went on all the time
  EXPECT(engine.scheduler.stats().retractions > 0);
  engine.run();
  EXPECT(engine.outcomes[100].tokens == output_after(tokens(4, 100), 20, 1000));
}

SPEC("nobody is admitted into a shortage of a further group's pages") {
  Engine engine(with({window(12, 7)}));
  engine.submit(1, tokens(16), 20);
  engine.step();
  engine.submit(2, tokens(16, 100), 10);
  engine.run();
  EXPECT(engine.scheduler.stats().retractions == 0);
  EXPECT(engine.ended(2));
}

SPEC("with further groups nobody is overtaken for ever") {
  for (const CacheGroup& group : {window(8, 7), recurrent(6)}) {
    Engine engine(with({group}));
    engine.submit(0, tokens(4), 30);
    engine.step();
    engine.submit(1, tokens(30, 100), 5);
    int steps = 0;
    for (RequestId id = 2; !engine.ended(1) && steps < 300; ++id, ++steps) {
      engine.submit(id, tokens(2, 200 + static_cast<Token>(id)), 1);
      engine.step();
    }
    EXPECT(steps < 300);
    engine.run();
    EXPECT(engine.scheduler.stats().waiting == 0);
  }
}
