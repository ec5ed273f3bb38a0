// SPDX-License-Identifier: MIT
// Transfers between the tiers: begun by a plan, ended in any order, each end proved by a token.
#pragma once

#include <compare>
#include <cstdint>
#include <set>
#include <stdexcept>
#include <string>

namespace ts {

// Names a transfer from its beginning on. Holding one proves nothing.
class TransferId {
 public:
  constexpr explicit TransferId(std::uint64_t number) : number_(number) {}
  [[nodiscard]] constexpr std::uint64_t number() const { return number_; }
  constexpr auto operator<=>(const TransferId&) const = default;

 private:
  std::uint64_t number_;
};

// Proof that one transfer has ended: no DMA of it still reads or writes a page.
class TransferToken {
 public:
  using Name = TransferId;  // what is in flight is named by transfers

  TransferToken(const TransferToken&) = delete;
  TransferToken& operator=(const TransferToken&) = delete;
  [[nodiscard]] bool covers(TransferId transfer) const { return transfer == ended_; }

 private:
  friend class TransferClock;
  explicit TransferToken(TransferId ended) : ended_(ended) {}
  TransferId ended_;
};

class TransferClock {
 public:
  [[nodiscard]] TransferId begin() {
    const TransferId transfer(++begun_);
    under_way_.insert(transfer);
    return transfer;
  }

  [[nodiscard]] TransferToken end(TransferId transfer) {
    if (under_way_.erase(transfer) == 0) {
      throw std::invalid_argument("transfer_id is " + std::to_string(transfer.number()) +
                                  ", but no transfer of that id is under way");
    }
    return TransferToken(transfer);
  }

  [[nodiscard]] const std::set<TransferId>& under_way() const { return under_way_; }

 private:
  std::uint64_t begun_ = 0;
  std::set<TransferId> under_way_;
};

}  // namespace ts
