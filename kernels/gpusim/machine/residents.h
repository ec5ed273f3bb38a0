// SPDX-License-Identifier: MIT
// Which clusters of a launch are on the device, and which of them has the next turn.
//
// A cluster runs alone until it ends or until it waits for global memory; only then does another
// one begin or go on. Clusters that never wait for each other thus run one after another.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace gpusim {

// Those that have not begun: they begin in the order of their numbers, as on a GPU.
class PendingClusters {
 public:
  explicit PendingClusters(std::uint64_t count) : count_(count) {}
  // Hands out the next one, to whoever asks.
  [[nodiscard]] std::optional<std::uint64_t> take() {
    if (next_ == count_) return std::nullopt;
    return next_++;
  }
  [[nodiscard]] std::uint64_t left() const { return count_ - next_; }

 private:
  std::uint64_t next_ = 0;
  std::uint64_t count_;
};

// A cluster that has begun.
class Resident {
 public:
  enum class Outcome : std::uint8_t { kEnded, kWaits };

  virtual ~Resident() = default;
  // Until it ends, or waits for memory that it reads again and again. `patient`: nobody else can go
  // on, so it reads some times more, and what may give up waiting does.
  [[nodiscard]] virtual Outcome go(bool patient) = 0;
  // Is there anything new in the memory that it waits for?
  [[nodiscard]] virtual bool has_news() const = 0;
  // A line for each of its warps: where it stands, what it waits for.
  [[nodiscard]] virtual std::vector<std::string> table() const = 0;
};

// Runs all that are pending, at most so many at a time. `begin`: one of that number, in that slot
// of the device. `changes`: counts what happens in global memory. Fault if none can go on.
void run_clusters(
    PendingClusters& pending, std::uint64_t most,
    const std::function<std::unique_ptr<Resident>(std::uint64_t number, std::uint32_t slot)>& begin,
    const std::uint64_t& changes, std::mt19937_64& chance);

}  // namespace gpusim
