// SPDX-License-Identifier: MIT
// Transfers from their beginning to their end: what a plan says of them, and what they hold.
//
// A step waits for those alone whose device pages its rows write over (kStore). All others run
// beside the steps, as late and as long as they like: what they read or write belongs to nobody
// else until they have ended.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "ts/host_tier.h"
#include "ts/in_flight.h"
#include "ts/plan.h"
#include "ts/transfer.h"
#include "ts/types.h"

namespace ts {

// Pages on their way to the device, for a request that waits for them.
struct Load {
  RequestId request;
  SlotId slot;
  std::vector<BlockId> blocks;  // whose host pages it reads; none if a peer sends them
  std::vector<PageId> device_pages;
  std::optional<double> since = {};  // when overdue() saw it first

  [[nodiscard]] bool receives() const { return blocks.empty(); }
};

// Pages that a peer reads.
struct Send {
  RequestId request;
  SlotId slot;
  std::vector<PageId> device_pages;
  std::optional<double> since = {};
};

// Pages on their way to the host tier, which have left the device's cache.
struct Stores {
  InFlight<std::vector<WriteBack>, TransferToken> pages;
  TransferKind kind;  // kStore or kDisplace
};

using Transfer = std::variant<Load, Stores, Send>;

class Transfers {
 public:
  // The next plan names them.
  [[nodiscard]] TransferId begin(Load&& load);
  [[nodiscard]] TransferId begin(Send&& send);
  // What its loads displace.
  void displace(std::vector<WriteBack>&& pages);

  // Names in the plan what has begun, with these stores, which the plan's rows wait for.
  void emit(std::vector<WriteBack>&& stores, const HostTier& host, Plan& plan);

  // Named by a plan, and not ended.
  [[nodiscard]] const std::map<TransferId, Transfer>& under_way() const { return under_way_; }
  [[nodiscard]] bool is_under_way(TransferId id) const { return under_way_.contains(id); }
  // Do copies between the tiers take bandwidth from the steps?
  [[nodiscard]] bool beside_steps() const { return beside_steps_ > 0; }
  // Begun, and not named by a plan yet.
  [[nodiscard]] const std::vector<std::pair<TransferId, Send>>& sends() const { return sends_; }

  struct Ended {
    Transfer transfer;
    TransferToken token;
  };
  // Precondition: it is under way.
  [[nodiscard]] Ended end(TransferId id);
  // There will be no plan to name what has begun: it is under way, to be ended.
  void name_no_more();

  // Those with a peer that have been under way for `timeout` or longer. Precondition: `now` is at
  // least what it was.
  [[nodiscard]] std::vector<std::uint64_t> overdue(double now, double timeout);
  [[nodiscard]] double now() const { return now_; }

  // Throws std::logic_error naming the first violated invariant, for tests.
  void check() const;

 private:
  void emit(TransferId id, TransferKind kind, RequestId request, Plan& plan);
  void emit(std::vector<WriteBack>&& stores, TransferKind kind, Plan& plan);

  TransferClock clock_;
  std::map<TransferId, Transfer> under_way_;
  std::int32_t beside_steps_ = 0;
  std::vector<std::pair<TransferId, Load>> loads_;
  std::vector<std::pair<TransferId, Send>> sends_;
  std::vector<WriteBack> displaced_;
  double now_ = 0;  // of the last overdue()
};

}  // namespace ts
