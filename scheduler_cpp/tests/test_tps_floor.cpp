// SPDX-License-Identifier: MIT
// The TPS floor: what its model learns, and what it does for users, in a closed loop with a machine
// whose steps last as long as a function of their shape says.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "driver.h"
#include "spec.h"
#include "ts/step_cost_model.h"
#include "ts/tps_floor.h"

using namespace ts;
using spec::Driver;
using spec::tokens;

namespace {

// --- the model

StepShape random_shape(std::mt19937_64& random) {
  const auto pick = [&random](std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(high - low + 1));
  };
  StepShape shape;
  for (std::int64_t rows = pick(1, 64); rows > 0; --rows) shape.add_decode(pick(100, 50000));
  for (std::int64_t chunks = pick(0, 2); chunks > 0; --chunks) {
    shape.add_chunk(pick(0, 50000), static_cast<std::int32_t>(pick(16, 4096)));
  }
  return shape;
}

double linear(const StepShape& shape) {
  return 0.004 + (30e-6 * shape.decode_rows) + (2e-9 * static_cast<double>(shape.decode_context)) +
         (20e-6 * shape.prefill_tokens) + (1e-7 * static_cast<double>(shape.prefill_context)) +
         (5e-10 * static_cast<double>(shape.prefill_pairs));
}

// The largest error of predictions, relative to the truth.
double worst_error(const StepCostModel& model, double scale = 1) {
  std::mt19937_64 random(99);
  double worst = 0;
  for (int i = 0; i < 100; ++i) {
    const StepShape shape = random_shape(random);
    const double truth = scale * linear(shape);
    worst = std::max(worst, std::abs(model.seconds(shape) - truth) / truth);
  }
  return worst;
}

StepCostModel learned(int steps, std::mt19937_64& random) {
  StepCostModel model;
  for (int i = 0; i < steps; ++i) {
    const StepShape shape = random_shape(random);
    model.learn(shape, linear(shape));
  }
  return model;
}

// --- beside transfers

StepShape beside_transfers(StepShape shape) {
  shape.beside_transfers = true;
  return shape;
}

// Users whose decode steps last 10 ms a row, and twice that beside a load, with a floor that four
// of them alone attain. A prompt of ten pages is in the host tier.
struct Loads {
  Loads()
      : driver([] {
          return SchedulerConfig{.page_size = 16,
                                 .num_pages = 64,
                                 .max_num_seqs = 8,
                                 .max_model_len = 1024,
                                 .max_num_batched_tokens = 1024,
                                 .chunked_prefill_size = 1024,
                                 .vocab_size = 100000,
                                 .min_tps_per_user = 20,
                                 .num_host_pages = 128};
        }()) {
    driver.submit(1, kPrompt, 1);
    driver.submit(2, tokens(1000, 5000), 1);
    while (step()) {
    }
    for (const RequestId id : {3, 4}) {
      driver.submit(id, tokens(1, 100 * Token(id)), 900);
      for (int i = 0; i < 80; ++i) step();
    }
  }

  bool step() {
    const bool beside = !under_way.empty();
    if (!driver.plan()) return false;
    const Plan& plan = driver.scheduler.plan_buffers();
    for (std::size_t i = 0; i < plan.transfer_id.size(); ++i) {
      if (static_cast<TransferKind>(plan.transfer_kind[i]) == TransferKind::kStore) {
        driver.complete_transfer(plan.transfer_id[i]);
      } else {
        under_way.push_back(plan.transfer_id[i]);
      }
    }
    std::size_t samples = 0;
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) samples += plan.row_samples[i] > 0;
    const double rows = static_cast<double>(plan.row_slot.size());
    predicted = driver.scheduler.floor().predicted_step_seconds;
    driver.commit(plan.step, std::vector<Token>(samples, 1), {},
                  0.01 * std::max(0.1, rows) * (beside ? 2 : 1));
    return true;
  }
  void end_transfers() {
    for (const std::uint64_t id : under_way) driver.complete_transfer(id);
    under_way.clear();
  }

  const std::vector<Token> kPrompt = tokens(161);
  Driver driver;
  std::vector<std::uint64_t> under_way;
  double predicted = 0;
};

// --- the closed loop

// A CPU whose prefill expands a row's whole context anew: a small chunk costs nearly as much as a
// large one.
double expanding(const StepShape& shape) {
  return 0.003 + (0.0005 * shape.decode_rows) +
         (50e-6 * static_cast<double>(shape.prefill_context)) + (60e-6 * shape.prefill_tokens);
}

// A GPU: a chunk costs what its tokens cost.
double streaming(const StepShape& shape) {
  return 0.006 + (0.0002 * shape.decode_rows) +
         (20e-9 * static_cast<double>(shape.decode_context)) + (25e-6 * shape.prefill_tokens);
}

SchedulerConfig config(double floor) {
  return {.page_size = 16,
          .num_pages = 2048,
          .max_num_seqs = 16,
          .max_model_len = 4096,
          .max_num_batched_tokens = 2048,
          .chunked_prefill_size = 512,
          .vocab_size = 100000,
          .enable_prefix_caching = false,
          .min_tps_per_user = floor};
}

struct Machine {
  Machine(double floor, std::function<double(const StepShape&)> cost, int overlap = 0)
      : driver([&] {
          SchedulerConfig c = config(floor);
          c.overlap_depth = overlap;
          return c;
        }()),
        cost(std::move(cost)),
        overlap(overlap) {}

  // Plans a step, and commits the oldest one in flight if there are more than may be.
  bool step() {
    const bool planned = driver.plan();
    if (planned) {
      const Plan& plan = driver.scheduler.plan_buffers();
      StepShape shape;
      std::size_t samples = 0;
      for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
        if (plan.row_tokens[i] == 1) {
          shape.add_decode(plan.row_start[i] + 1);
        } else {
          shape.add_chunk(plan.row_start[i], plan.row_tokens[i]);
        }
        samples += plan.row_samples[i] > 0 ? 1 : 0;
      }
      flying.push_back({plan.step, samples, cost(shape)});
    }
    if (flying.empty()) return false;
    if (planned && static_cast<int>(flying.size()) <= overlap) return true;
    const Flight flight = flying.front();
    flying.erase(flying.begin());
    now += flight.seconds;
    driver.commit(flight.step, std::vector<Token>(flight.samples, 1), {}, flight.seconds);
    const Output& output = driver.scheduler.output_buffers();
    for (std::size_t i = 0; i < output.request.size(); ++i) {
      at[output.request[i]].push_back(now);
    }
    return true;
  }
  void run() {
    while (step()) {
    }
  }
  // Short requests of different lengths, from which the model learns what steps cost.
  void warm_up() {
    for (RequestId id = 1000; id < 1006; ++id) {
      driver.submit(id, tokens(200 * static_cast<std::int32_t>(id - 999)), 20);
      for (int i = 0; i < 4; ++i) step();
    }
    run();
  }
  [[nodiscard]] double rate(RequestId id) {
    const std::vector<double>& times = at[id];
    return static_cast<double>(times.size() - 1) / (times.back() - times.front());
  }
  [[nodiscard]] double longest_gap(RequestId id) {
    double gap = 0;
    for (std::size_t i = 1; i < at[id].size(); ++i) gap = std::max(gap, at[id][i] - at[id][i - 1]);
    return gap;
  }
  [[nodiscard]] FloorReport floor() { return driver.scheduler.floor(); }

  struct Flight {
    std::uint64_t step;
    std::size_t samples;
    double seconds;
  };
  Driver driver;
  std::function<double(const StepShape&)> cost;
  int overlap;
  std::vector<Flight> flying;
  double now = 0;
  std::map<RequestId, std::vector<double>> at;  // when its tokens came
};

// One user decodes while three prompts of 2,500 tokens arrive.
void long_prompts(Machine& machine, std::int64_t output_tokens = 400) {
  machine.driver.submit(1, tokens(32), output_tokens);
  for (int i = 0; i < 240; ++i) {
    if (i % 60 == 59 && i < 200) {
      machine.driver.submit(static_cast<RequestId>(2 + (i / 60)), tokens(2500, 100 * i), 2);
    }
    machine.step();
  }
  machine.run();
}

}  // namespace

SPEC("a linear cost is learned within 64 steps of different shapes") {
  std::mt19937_64 random(1);
  EXPECT(worst_error(learned(64, random)) < 0.02);
}

SPEC("no weight is negative: more work never makes a step shorter") {
  std::mt19937_64 random(2);
  StepCostModel model;
  for (int i = 0; i < 300; ++i) {
    const StepShape shape = random_shape(random);
    model.learn(shape, 0.001 * static_cast<double>(1 + random() % 50));  // noise alone
    const StepShape base = random_shape(random);
    StepShape more = base;
    more.add_decode(10000);
    more.add_chunk(5000, 500);
    EXPECT(model.seconds(base) >= 0);
    EXPECT(model.seconds(more) >= model.seconds(base));
  }
}

SPEC("an outlier, long or short, does not spoil what was learned") {
  for (const double outlier : {1e4, 1e-9}) {
    std::mt19937_64 random(3);
    StepCostModel model = learned(200, random);
    model.learn(random_shape(random), outlier);
    EXPECT(worst_error(model) < 0.1);
  }
}

SPEC("whatever a clock says, predictions stay finite, and are right again soon") {
  std::mt19937_64 random(7);
  StepCostModel model;
  for (int i = 0; i < 400; ++i) {
    const StepShape shape = random_shape(random);
    model.learn(shape, i % 50 == 0 ? 1e300 : i % 50 == 25 ? 1e-300 : linear(shape));
    EXPECT(std::isfinite(model.seconds(shape)) && model.seconds(shape) >= 0);
  }
  for (int i = 0; i < 200; ++i) {
    const StepShape shape = random_shape(random);
    model.learn(shape, linear(shape));
  }
  EXPECT(worst_error(model) < 0.1);
}

SPEC("a machine that becomes three times as slow is noticed within 600 steps") {
  std::mt19937_64 random(4);
  StepCostModel model = learned(500, random);
  for (int i = 0; i < 600; ++i) {
    const StepShape shape = random_shape(random);
    model.learn(shape, 3 * linear(shape));
  }
  EXPECT(worst_error(model, 3) < 0.1);
}

SPEC("what one user costs is no reason to refuse a second before two were seen") {
  StepCostModel model;
  StepShape one;
  one.add_decode(1000);
  StepShape two = one;
  two.add_decode(1000);
  for (int i = 0; i < 100; ++i) model.learn(one, linear(one));
  EXPECT(model.seconds(two) < 1.01 * model.seconds(one));
}

SPEC("hours of decoding leave what is known of prefill as it was") {
  std::mt19937_64 random(5);
  StepCostModel model = learned(200, random);
  StepShape decodes;
  for (int i = 0; i < 8; ++i) decodes.add_decode(1000);
  StepShape both = decodes;
  both.add_chunk(20000, 512);
  for (int i = 0; i < 1000000; ++i) model.learn(decodes, linear(decodes));
  const double truth = linear(both) - linear(decodes);
  EXPECT(std::abs(model.seconds(both) - model.seconds(decodes) - truth) < 0.05 * truth);
}

SPEC("without a floor long prompts push a decoding user down") {
  Machine machine(0, expanding);
  machine.warm_up();
  long_prompts(machine);
  EXPECT(machine.rate(1) < 150);
  EXPECT(machine.floor().held_prefill_tokens == 0);
  EXPECT(machine.floor().predicted_step_seconds == 0);
}

SPEC("a decoding user keeps its floor while long prompts prefill, where small chunks are dear") {
  for (const int overlap : {0, 1}) {
    for (const double floor : {100.0, 150.0, 200.0}) {
      Machine machine(floor, expanding, overlap);
      machine.warm_up();
      long_prompts(machine);
      EXPECT(machine.rate(1) >= 0.98 * floor);
      EXPECT(machine.longest_gap(1) <= 1.0);
      EXPECT(machine.floor().held_prefill_tokens > 0);
    }
  }
}

SPEC("a decoding user keeps its floor while long prompts prefill, where small chunks are cheap") {
  for (const int overlap : {0, 1}) {
    for (const double floor : {70.0, 100.0, 150.0}) {
      Machine machine(floor, streaming, overlap);
      machine.warm_up();
      long_prompts(machine, 1000);
      EXPECT(machine.rate(1) >= 0.98 * floor);
      EXPECT(machine.longest_gap(1) <= 1.0);
    }
  }
}

SPEC("prefill goes on beside a user who keeps the floor, and ends before that user does") {
  Machine machine(100, expanding);
  machine.warm_up();
  machine.driver.submit(1, tokens(32), 1000);
  for (int i = 0; i < 60; ++i) machine.step();
  machine.driver.submit(2, tokens(2500, 5000), 2);
  machine.run();
  EXPECT(machine.rate(1) >= 98);
  EXPECT(machine.at[2].back() < machine.at[1].back());
}

SPEC("in any second a user gets the floor's tokens, less one stall") {
  Machine machine(100, expanding);
  machine.warm_up();
  long_prompts(machine, 2000);
  const std::vector<double>& at = machine.at[1];
  for (std::size_t i = 0; i < at.size(); ++i) {
    for (std::size_t j = i + 1; j < at.size(); ++j) {
      const double due = 100 * (at[j] - at[i] - 1.0);
      EXPECT(static_cast<double>(j - i) >= due - 2);
    }
  }
}

SPEC(
    "a user who would push the others below the floor waits, and gets a slot when one of them "
    "ends") {
  // At 200 tokens/s a step has 5 ms, of which prefill is left a tenth.
  Machine machine(200, [](const StepShape& shape) {
    return 0.003 + (0.0004 * shape.decode_rows) + (20e-6 * shape.prefill_tokens);
  });
  machine.warm_up();
  for (RequestId id = 1; id <= 6; ++id) {
    machine.driver.submit(id, tokens(16, 100 * static_cast<Token>(id)), 300);
  }
  int most = 0;
  while (machine.step()) most = std::max(most, machine.driver.scheduler.stats().running);
  EXPECT(most == 3);
  EXPECT(machine.floor().held_admissions > 0);
  for (RequestId id = 1; id <= 6; ++id) {
    EXPECT(machine.at[id].size() == 300);
    EXPECT(machine.rate(id) >= 196);
  }
}

SPEC("a floor that not even one user alone can have holds nobody back, and all end") {
  Machine machine(5000, expanding);
  machine.warm_up();
  const FloorReport before = machine.floor();
  long_prompts(machine);
  for (RequestId id = 1; id <= 4; ++id) EXPECT(machine.driver.ended(id));
  EXPECT(machine.floor().held_prefill_tokens == before.held_prefill_tokens);
  EXPECT(machine.floor().held_admissions == before.held_admissions);
}

SPEC("users whose contexts outgrow the floor hold admission until one of them ends") {
  Machine machine(100, [](const StepShape& shape) {
    return 0.002 + (5e-6 * static_cast<double>(shape.decode_context)) +
           (40e-6 * shape.prefill_tokens);
  });
  machine.warm_up();
  machine.driver.submit(1, tokens(400), 1500);
  machine.driver.submit(2, tokens(400), 1500);
  for (int i = 0; i < 800; ++i) machine.step();
  EXPECT(machine.driver.scheduler.stats().running == 2);
  machine.driver.submit(3, tokens(100), 100);
  for (int i = 0; i < 100; ++i) machine.step();
  EXPECT(machine.driver.scheduler.stats().waiting == 1);
  machine.run();
  for (RequestId id = 1; id <= 3; ++id) EXPECT(machine.driver.ended(id));
  EXPECT(machine.at[3].front() > machine.at[1].back());
}

SPEC("a prefill under way is put off for four stalls at most, whoever is below the floor") {
  TpsFloor floor(100);
  std::mt19937_64 random(6);
  for (int i = 0; i < 100; ++i) {
    const StepShape shape = random_shape(random);
    floor.lasted(shape, linear(shape));
  }
  StepShape decodes;
  decodes.add_decode(1000);
  const double begin = floor.now();
  std::int32_t granted = 0;
  while (granted == 0 && floor.now() < begin + 10) {
    floor.begin(0);
    floor.decodes(floor.now() - 0.5, false);
    floor.limit(decodes);
    granted = floor.grant(decodes, 1000, 512, 16);
    if (granted == 0) floor.lasted(decodes, linear(decodes));
  }
  EXPECT(granted >= 16);
  EXPECT(floor.now() - begin > 3.9 && floor.now() - begin < 4.1);
}

SPEC("prompt tokens that the floor puts off are counted once") {
  Machine machine(200, expanding);
  machine.warm_up();
  const std::int64_t before = machine.floor().held_prefill_tokens;
  long_prompts(machine);
  const std::int64_t held = machine.floor().held_prefill_tokens - before;
  EXPECT(held > 0);
  EXPECT(held <= 3 * 2500);
}

SPEC("the report says what users attained") {
  RateHistogram rates;
  EXPECT(rates.quantile(0.5) == 0);
  for (int i = 1; i <= 1000; ++i) rates.add(i);
  EXPECT(std::abs(rates.quantile(0.01) - 11) < 0.2);
  EXPECT(std::abs(rates.quantile(0.5) - 501) < 5);

  Machine machine(0, [](const StepShape& shape) { return shape.decode_rows > 0 ? 0.02 : 0.5; });
  machine.driver.submit(1, tokens(16), 40);
  machine.run();
  EXPECT(machine.floor().users == 1);
  EXPECT(std::abs(machine.floor().attained_p1 - 50) < 0.5);
  EXPECT(std::abs(machine.floor().attained_p50 - 50) < 0.5);
}

SPEC("a chunk of one token is no decoded token") {
  Machine with_chunk(100, streaming);
  with_chunk.warm_up();
  // Prompts that end in a chunk of one token would otherwise pass for speculation.
  for (RequestId id = 1; id <= 30; ++id) {
    with_chunk.driver.submit(id, tokens(513, 600 * static_cast<Token>(id)), 30);
    with_chunk.step();
  }
  with_chunk.run();
  for (RequestId id = 1; id <= 30; ++id) EXPECT(with_chunk.rate(id) >= 98);
}

SPEC("what a step takes longer beside transfers is learned apart, as a multiple of its time") {
  std::mt19937_64 random(7);
  StepCostModel model = learned(300, random);
  const double before = worst_error(model);
  for (int i = 0; i < 100; ++i) {
    const StepShape shape = random_shape(random);
    model.learn(beside_transfers(shape), 1.4 * linear(shape));
  }
  EXPECT(worst_error(model) == before);
  const StepShape shape = random_shape(random);
  EXPECT(std::abs(model.seconds(beside_transfers(shape)) / model.seconds(shape) - 1.4) < 0.02);
}

SPEC("no step is predicted to be shorter beside transfers") {
  std::mt19937_64 random(8);
  StepCostModel model = learned(100, random);
  for (int i = 0; i < 50; ++i) {
    const StepShape shape = random_shape(random);
    model.learn(beside_transfers(shape), 0.5 * linear(shape));
  }
  const StepShape shape = random_shape(random);
  EXPECT(model.seconds(beside_transfers(shape)) == model.seconds(shape));
}

SPEC("a step without rows says nothing of what steps cost") {
  TpsFloor floor(30);
  for (int i = 0; i < 100; ++i) floor.lasted({}, 1);
  StepShape shape;
  shape.add_decode(100);
  EXPECT(floor.planned(shape) == 0);
  EXPECT(floor.now() == 100);  // but its time has passed
}

SPEC("steps beside a load are predicted as such steps were, and others as before") {
  Loads machine;
  const double alone = machine.predicted;
  EXPECT(std::abs(alone - 0.02) < 0.002);
  machine.driver.submit(5, machine.kPrompt, 1);
  for (int i = 0; i < 100; ++i) machine.step();
  EXPECT(!machine.under_way.empty());
  EXPECT(std::abs(machine.predicted - 0.04) < 0.004);
  machine.end_transfers();
  while (!machine.driver.ended(5)) machine.step();
  machine.step();
  EXPECT(std::abs(machine.predicted - alone) < 0.002);
}

SPEC("who would push others below the floor beside a load is held until it ends") {
  Loads machine;
  machine.driver.submit(5, machine.kPrompt, 1);
  for (int i = 0; i < 100; ++i) machine.step();
  machine.driver.submit(6, tokens(1, 900), 900);  // four of them: 40 ms alone, 80 beside the load
  machine.step();
  EXPECT(machine.driver.admitted().empty());
  machine.end_transfers();
  EXPECT(machine.driver.plan());
  EXPECT(machine.driver.admitted() == std::vector<RequestId>{6});
}
