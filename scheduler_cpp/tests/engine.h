// SPDX-License-Identifier: MIT
// A driver whose steps a device carries out: a page mix-up throws or changes an output.
#pragma once

#include <map>
#include <vector>

#include "device.h"
#include "driver.h"

namespace spec {

class Engine : public Driver {
 public:
  explicit Engine(const ts::SchedulerConfig& config) : Driver(config), device_(config) {}

  // The planned step is carried out and committed; no token is sampled for `failing`.
  void commit(ts::RequestId failing = ts::kNobody) {
    const ts::Plan& plan = scheduler.plan_buffers();
    for (std::size_t i = 0; i < plan.admitted_slot.size(); ++i) {
      seated_[plan.admitted_slot[i]] = plan.admitted_request[i];
    }
    for (std::size_t i = 0; i < plan.transfer_id.size(); ++i) {
      const auto kind = static_cast<ts::TransferKind>(plan.transfer_kind[i]);
      (kind == ts::TransferKind::kLoad || kind == ts::TransferKind::kReceive ? loads : stores)++;
    }
    Yield yield = device_.execute(plan, [](int) { return 0; });
    std::size_t row = 0;
    for (std::size_t i = 0; i < plan.row_slot.size(); ++i) {
      if (plan.row_samples[i] == 0) continue;
      if (seated_[plan.row_slot[i]] == failing) yield.tokens[row] = ts::kNoToken;
      ++row;
    }
    Driver::commit(plan.step, yield.tokens, yield.counts);
  }
  bool step() {
    if (!plan()) return false;
    commit();
    return true;
  }

  // The transfer that began first ends.
  void end_transfer(bool ok = true) { complete_transfer(device_.end_transfer(0, ok), ok); }
  // The one that began last; false if none is under way.
  bool end_last_transfer() {
    if (device_.transfers() == 0) return false;
    complete_transfer(device_.end_transfer(device_.transfers() - 1, true));
    return true;
  }
  void end_transfers(bool ok = true) {
    while (device_.transfers() > 0) end_transfer(ok);
  }

  // Until nothing is left to do.
  void run(bool transfers_end_well = true) {
    while (step() || device_.transfers() > 0) end_transfers(transfers_end_well);
  }

  int stores = 0;  // begun
  int loads = 0;

 private:
  Device device_;
  std::map<ts::SlotId, ts::RequestId> seated_;
};

// What follows a prompt, whoever else is served.
[[nodiscard]] inline std::vector<ts::Token> output_after(std::vector<ts::Token> prompt, int tokens,
                                                         std::int32_t vocab_size) {
  std::vector<ts::Token> output;
  for (; tokens > 0; --tokens) {
    output.push_back(next_token(prompt, vocab_size));
    prompt.push_back(output.back());
  }
  return output;
}

}  // namespace spec
