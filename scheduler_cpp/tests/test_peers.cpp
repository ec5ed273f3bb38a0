// SPDX-License-Identifier: MIT
// Transfers with a peer that never end by themselves: it has died.
#include "driver.h"
#include "spec.h"

using namespace ts;
using spec::Driver;
using spec::tokens;

namespace {

using Ids = std::vector<std::uint64_t>;

SchedulerConfig config() {
  return {.page_size = 4,
          .num_pages = 8,
          .max_num_seqs = 4,
          .max_model_len = 32,
          .max_num_batched_tokens = 16,
          .chunked_prefill_size = 16,
          .vocab_size = 1000,
          .peer_timeout = 5};
}

void submit(Driver& driver, RequestId id, const std::vector<Token>& prompt, Role role) {
  driver.submit({.id = id,
                 .prompt = prompt,
                 .max_tokens = role == Role::kPrefill ? 1 : 3,
                 .eos_token_ids = {},
                 .stop_token_ids = {},
                 .cache_salt = {},
                 .params = {},
                 .role = role});
}

// The transfer of the plan made last.
std::uint64_t planned_transfer(Driver& driver) {
  const Plan& plan = driver.scheduler.plan_buffers();
  EXPECT(plan.transfer_id.size() == 1);
  return plan.transfer_id[0];
}

}  // namespace

SPEC(
    "a send whose peer dies is overdue after the timeout, and frees its pages once it is stopped") {
  Driver driver(config());
  submit(driver, 1, tokens(10), Role::kPrefill);
  driver.step();
  driver.step();
  const std::uint64_t send = planned_transfer(driver);
  EXPECT(driver.scheduler.overdue_transfers(100).empty());
  EXPECT(driver.scheduler.overdue_transfers(104.9).empty());
  EXPECT(driver.scheduler.overdue_transfers(105) == Ids{send});
  EXPECT(driver.scheduler.stats().pages_used == 3);  // the peer may be reading them still
  driver.complete_transfer(send, false);
  EXPECT(driver.scheduler.stats().pages_used == 0);
  EXPECT(driver.scheduler.overdue_transfers(200).empty());
}

SPEC("a prompt whose peer dies is computed here") {
  Driver driver(config());
  submit(driver, 1, tokens(10), Role::kDecode);
  driver.step();
  const std::uint64_t receive = planned_transfer(driver);
  EXPECT(driver.scheduler.overdue_transfers(0).empty());
  EXPECT(!driver.plan());
  EXPECT(driver.scheduler.overdue_transfers(5) == Ids{receive});
  driver.complete_transfer(receive, false);
  driver.run();
  EXPECT(driver.outcomes[1].tokens.size() == 3);
}

SPEC("a request that was aborted while it received gives its pages up like any other") {
  Driver driver(config());
  submit(driver, 1, tokens(10), Role::kDecode);
  driver.step();
  const std::uint64_t receive = planned_transfer(driver);
  driver.abort(1);
  EXPECT(driver.scheduler.overdue_transfers(1).empty());
  EXPECT(driver.scheduler.overdue_transfers(6) == Ids{receive});
  driver.complete_transfer(receive, false);
  EXPECT(driver.scheduler.stats().pages_used == 0);
}

SPEC("dead peers do not keep a waiting request from its pages") {
  Driver driver(config());
  for (RequestId id = 0; id < 2; ++id) {
    submit(driver, id, tokens(14, 100 * static_cast<Token>(id)), Role::kPrefill);
    driver.step();
  }
  driver.step();
  driver.submit(9, tokens(20, 500), 4);
  EXPECT(!driver.plan());  // 8 pages are being read
  EXPECT(driver.scheduler.overdue_transfers(0).empty());
  for (const std::uint64_t id : driver.scheduler.overdue_transfers(5)) {
    driver.complete_transfer(id, false);
  }
  driver.run();
  EXPECT(driver.outcomes[9].tokens.size() == 4);
}

SPEC("a transfer that ends in time is never overdue") {
  Driver driver(config());
  submit(driver, 1, tokens(10), Role::kPrefill);
  driver.step();
  driver.step();
  EXPECT(driver.scheduler.overdue_transfers(0).empty());
  driver.complete_transfer(planned_transfer(driver));
  EXPECT(driver.scheduler.overdue_transfers(100).empty());
}

SPEC("without a timeout nothing is overdue") {
  SchedulerConfig patient = config();
  patient.peer_timeout = 0;
  Driver driver(patient);
  submit(driver, 1, tokens(10), Role::kPrefill);
  driver.step();
  driver.step();
  EXPECT(driver.scheduler.overdue_transfers(0).empty());
  EXPECT(driver.scheduler.overdue_transfers(1e9).empty());
}

SPEC("a clock that goes back is refused") {
  Driver driver(config());
  EXPECT(driver.scheduler.overdue_transfers(7).empty());
  EXPECT_THROWS(std::invalid_argument, "now is 6", driver.scheduler.overdue_transfers(6));
  EXPECT(driver.scheduler.overdue_transfers(7).empty());
}
