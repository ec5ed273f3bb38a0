// SPDX-License-Identifier: MIT
// Who accessed which words of global memory, and which of them race.
//
// A word costs 4 bytes once it is read and 4 once it is written: the number of a list of accesses.
// Lists and accesses are interned, since neighbouring words have the same.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "happens_before.h"
#include "release_acquire.h"

namespace gpusim {

class GlobalHistory {
 public:
  GlobalHistory();

  // The agent that acts reads or writes. Strong accesses do not race with each other, if the scope
  // of each includes the other. `order`: of the warp that acts, to explain a race; may be null.
  void read(std::uint64_t address, std::uint64_t bytes, Strength strength,
            const Correspondence* order);
  // `same`: it writes what is there already, which is no race with another write.
  void write(std::uint64_t address, std::uint64_t bytes, bool same, Strength strength,
             const Correspondence* order);

 private:
  using Number = std::uint32_t;  // 0: none

  struct Access {
    Clock clock = 0;
    std::uint32_t slot = 0;
    std::uint32_t cluster = 0;
    std::uint32_t pc = 0;
    std::uint16_t cta = 0;
    std::int16_t warp = 0;
    Scope scope = Scope::kGpu;
    bool strong = false;
    bool by_itself = false;
    bool async = false;  // through the asynchronous proxy

    bool operator==(const Access&) const = default;
    [[nodiscard]] Epoch epoch() const { return {.slot = slot, .clock = clock}; }
    [[nodiscard]] Whereabouts whereabouts() const { return {.cluster = cluster, .cta = cta}; }
  };
  // A list: an access of some bytes of a word, and the accesses before it.
  struct Entry {
    Number access = 0;
    Number rest = 0;
    std::uint16_t length = 0;
    std::uint8_t bytes = 0;

    bool operator==(const Entry&) const = default;
  };
  static constexpr std::size_t kPageWords = 1024;
  static constexpr std::uint64_t kPageBytes = 4 * kPageWords;
  struct Page {
    std::unique_ptr<Number[]> writers;  // null: none
    std::unique_ptr<Number[]> readers;
  };
  // What became of a word's lists when it was accessed.
  struct Outcome {
    Number access = 0;
    std::uint8_t bytes = 0;
    bool wrote = false;
    bool same = false;
    Number writers = 0, readers = 0;
    Number writers_after = 0, readers_after = 0;
  };

  template <bool kWrites>
  void access(std::uint64_t address, std::uint64_t bytes, bool same, Strength strength,
              const Correspondence* order);
  [[nodiscard]] Page& page(std::uint64_t address);
  [[nodiscard]] Number number_of(const Access& access);
  [[nodiscard]] Number list_of(Number access, std::uint8_t bytes, Number rest);
  [[nodiscard]] static bool known(const Access& access);
  // Those of the list that a later access may still race with, if the one that acts does not.
  [[nodiscard]] Number unordered(Number list, std::uint8_t bytes, std::size_t most);
  void compare(Number list, Number now, std::uint8_t bytes, bool wrote, bool writes,
               std::uint64_t address, const Correspondence* order);

  std::vector<Access> accesses_;  // by number
  std::vector<Entry> entries_;    // by number
  std::array<Number, 1024> recent_accesses_{};
  std::array<Number, 4096> recent_entries_{};
  Outcome outcome_;
  std::unordered_map<std::uint64_t, Page> pages_;
  std::array<std::pair<std::uint64_t, Page*>, 64> recent_pages_{};
};

}  // namespace gpusim
