// SPDX-License-Identifier: MIT
#include "residents.h"

#include <algorithm>

#include "program.h"

namespace gpusim {
namespace {

constexpr std::size_t kLines = 64;  // of a deadlock's table

struct Place {
  std::unique_ptr<Resident> resident;  // null: free
  std::uint64_t seen = 0;              // changes of memory when it last had to wait
};

class Device {
 public:
  Device(PendingClusters& pending, std::uint64_t most, const std::uint64_t& changes)
      : pending_(pending), most_(most), changes_(changes) {}

  [[nodiscard]] bool empty() const { return residents_ == 0; }
  [[nodiscard]] bool has_room() const { return residents_ < most_; }

  // The place for one that begins.
  std::uint32_t room() {
    const auto free = std::ranges::find_if(places_, [](const Place& p) { return !p.resident; });
    if (free != places_.end()) return static_cast<std::uint32_t>(free - places_.begin());
    places_.emplace_back();
    return static_cast<std::uint32_t>(places_.size() - 1);
  }
  void begin(std::uint32_t slot, std::unique_ptr<Resident> resident) {
    places_[slot].resident = std::move(resident);
    ++residents_;
    go(slot, false);
  }
  void go(std::uint32_t slot, bool patient) {
    Place& place = places_[slot];
    const bool ended = place.resident->go(patient) == Resident::Outcome::kEnded;
    if (ended) {
      place.resident.reset();
      --residents_;
    }
    place.seen = changes_;
  }
  // Those for which something is new.
  [[nodiscard]] std::vector<std::uint32_t> with_news() const {
    std::vector<std::uint32_t> slots;
    for (std::uint32_t slot = 0; slot < places_.size(); ++slot) {
      const Place& place = places_[slot];
      if (place.resident && place.seen != changes_ && place.resident->has_news()) {
        slots.push_back(slot);
      }
    }
    return slots;
  }
  // Nobody has news: each tries again. Fault if that changes nothing.
  void insist() {
    const std::uint64_t before = changes_;
    const std::uint64_t residents = residents_;
    for (std::uint32_t slot = 0; slot < places_.size(); ++slot) {
      if (places_[slot].resident) go(slot, true);
    }
    if (changes_ == before && residents_ == residents) throw Fault("deadlock", sentence());
  }

 private:
  [[nodiscard]] std::string sentence() const {
    std::string text = "no thread can go on:";
    if (pending_.left() > 0) {
      text = "no thread can go on, and " + std::to_string(pending_.left()) +
             " clusters have not begun, since the device holds " + std::to_string(most_) +
             " at a time (one CTA on an SM): launch no more than can wait for each other:";
    }
    std::vector<std::string> lines;
    for (const Place& place : places_) {
      if (!place.resident) continue;
      const std::vector<std::string> table = place.resident->table();
      lines.insert(lines.end(), table.begin(), table.end());
    }
    for (std::size_t i = 0; i < std::min(lines.size(), kLines); ++i) text += lines[i];
    if (lines.size() > kLines) {
      text += "\n  and " + std::to_string(lines.size() - kLines) + " more";
    }
    return text;
  }

  PendingClusters& pending_;
  std::uint64_t most_;
  const std::uint64_t& changes_;
  std::vector<Place> places_;
  std::uint64_t residents_ = 0;
};

}  // namespace

void run_clusters(
    PendingClusters& pending, std::uint64_t most,
    const std::function<std::unique_ptr<Resident>(std::uint64_t number, std::uint32_t slot)>& begin,
    const std::uint64_t& changes, std::mt19937_64& chance) {
  Device device(pending, most, changes);
  while (!device.empty() || pending.left() > 0) {
    const std::vector<std::uint32_t> ready = device.with_news();
    const bool may_begin = device.has_room() && pending.left() > 0;
    if (!ready.empty() && (!may_begin || chance() % 2 == 0)) {
      device.go(ready[chance() % ready.size()], false);
    } else if (const auto number = may_begin ? pending.take() : std::nullopt) {
      const std::uint32_t slot = device.room();
      device.begin(slot, begin(*number, slot));
    } else {
      device.insist();
    }
  }
}

}  // namespace gpusim
