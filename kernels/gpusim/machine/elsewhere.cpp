// SPDX-License-Identifier: MIT
#include "elsewhere.h"

#include <utility>

#include "happens_before.h"

namespace gpusim {
namespace {

using Shared = std::shared_ptr<const VectorClock>;

void learn(Shared& known, const Shared& more) {
  if (known == more || more == nullptr || (known != nullptr && known->covers(*more))) return;
  if (known == nullptr || more->covers(*known)) {
    known = more;
    return;
  }
  VectorClock joined = *known;
  joined.join(*more);
  known = std::make_shared<const VectorClock>(std::move(joined));
}

void learn(Elsewhere::Known& known, const Elsewhere::Known& more) {
  learn(known.all, more.all);
  learn(known.fenced, more.fenced);
}

}  // namespace

const Elsewhere::Known* Elsewhere::of(std::uint32_t cluster) const {
  if (clusters_ == nullptr) return nullptr;
  const auto found = clusters_->find(cluster);
  return found == clusters_->end() ? nullptr : &found->second;
}

bool Elsewhere::covers(std::uint32_t cluster, const Epoch& epoch) const {
  const Known* const known = of(cluster);
  return known != nullptr && known->all != nullptr && known->all->covers(epoch);
}

bool Elsewhere::fenced_covers(std::uint32_t cluster, const Epoch& epoch) const {
  const Known* const known = of(cluster);
  return known != nullptr && known->fenced != nullptr && known->fenced->covers(epoch);
}

void Elsewhere::add(std::uint32_t cluster, const Known& known) {
  auto clusters =
      clusters_ == nullptr ? std::make_shared<Clusters>() : std::make_shared<Clusters>(*clusters_);
  learn((*clusters)[cluster], known);
  clusters_ = std::move(clusters);
}

void Elsewhere::merge(const Elsewhere& other) {
  if (clusters_ == nullptr) {
    clusters_ = other.clusters_;
    return;
  }
  auto clusters = std::make_shared<Clusters>(*clusters_);
  for (const auto& [cluster, known] : *other.clusters_) learn((*clusters)[cluster], known);
  clusters_ = std::move(clusters);
}

void Elsewhere::fence() {
  if (clusters_ == nullptr) return;
  auto clusters = std::make_shared<Clusters>(*clusters_);
  for (auto& [_, known] : *clusters) known.fenced = known.all;
  clusters_ = std::move(clusters);
}

}  // namespace gpusim
