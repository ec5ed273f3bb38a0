// SPDX-License-Identifier: MIT
// What an agent knows of agents of other clusters, of which it hears through global memory. Most
// know nothing. The rest share what they know: it is copied only when it grows.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

namespace gpusim {

class VectorClock;
struct Epoch;

class Elsewhere {
 public:
  // Of a cluster: what is known, and which of it may be relied on across proxies.
  struct Known {
    std::shared_ptr<const VectorClock> all;
    std::shared_ptr<const VectorClock> fenced;
  };

  // Null: nothing.
  [[nodiscard]] const Known* of(std::uint32_t cluster) const;
  [[nodiscard]] bool covers(std::uint32_t cluster, const Epoch& epoch) const;
  [[nodiscard]] bool fenced_covers(std::uint32_t cluster, const Epoch& epoch) const;

  void add(std::uint32_t cluster, const Known& known);
  void join(const Elsewhere& other) {
    if (other.clusters_ != nullptr && other.clusters_ != clusters_) merge(other);
  }
  void fence();

 private:
  using Clusters = std::map<std::uint32_t, Known>;

  void merge(const Elsewhere& other);

  std::shared_ptr<const Clusters> clusters_;
};

}  // namespace gpusim
