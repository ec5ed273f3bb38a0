// SPDX-License-Identifier: MIT
// What strong accesses tell each other through memory (PTX ISA 8.9 "release and acquire patterns").
//
// A release is a strong write that nothing before it may follow, or a fence and a relaxed write
// after it: what its warp knew then is left at the location. An acquire is a strong read, or a
// relaxed read and a fence after it, and learns what was left there. Read-modify-writes add to it.
// Neither has an effect if the scope of one does not include the other.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "elsewhere.h"

namespace gpusim {

struct Agent;
using Clock = std::uint32_t;

enum class Order : std::uint8_t { kWeak, kRelaxed, kAcquire, kRelease, kAcquireRelease };
enum class Scope : std::uint8_t { kCta, kCluster, kGpu, kSystem };

[[nodiscard]] inline bool acquires(Order order) {
  return order == Order::kAcquire || order == Order::kAcquireRelease;
}
[[nodiscard]] inline bool releases(Order order) {
  return order == Order::kRelease || order == Order::kAcquireRelease;
}

// Where an agent is.
struct Whereabouts {
  std::uint32_t cluster = 0;
  std::uint32_t cta = 0;  // rank in the cluster

  bool operator==(const Whereabouts&) const = default;
};

// Does a scope around one include the other?
[[nodiscard]] bool includes(Scope scope, Whereabouts around, Whereabouts other);

// How an access takes part in the order of strong ones.
struct Strength {
  Order order = Order::kWeak;
  Scope scope = Scope::kGpu;
  [[nodiscard]] bool strong() const { return order != Order::kWeak; }
};

// What a write left for those who read it.
struct Message {
  Elsewhere knows;  // of the writer's cluster as well
  Scope scope = Scope::kGpu;
  std::optional<Whereabouts> from;  // none: several
  bool released = true;             // false: it was no release, and teaches nothing
};

// The messages at the locations of a memory.
class Mailboxes {
 public:
  void write(std::uint64_t at, const Message& message);
  // By a read-modify-write.
  void update(std::uint64_t at, const Message& message);
  [[nodiscard]] const std::vector<Message>& at(std::uint64_t at) const;
  void clear() { boxes_.clear(); }

 private:
  // What teaches nothing is left in a few places only, to explain races.
  [[nodiscard]] bool has_room(std::uint64_t at, const Message& message) const;

  std::unordered_map<std::uint64_t, std::vector<Message>> boxes_;
};

// What the warps of a CTA have read that taught them nothing.
class Misunderstandings {
 public:
  // `reader`: the strong accesses of a warp. `why`: the rest of a sentence.
  void add(const void* reader, const Message& message, const char* why);
  void remove(const void* reader, const char* why);
  // Why an access is not known to the CTA, though one of its warps has read what was written after.
  [[nodiscard]] std::string why_not(std::uint32_t cluster, const Epoch& epoch) const;

 private:
  struct Missed {
    const void* reader;
    Message message;
    const char* why;
  };
  std::vector<Missed> missed_;
};

// The strong accesses and fences of a warp. The agent that acts is the warp.
class Correspondence {
 public:
  explicit Correspondence(Misunderstandings& missed) : missed_(&missed) {}

  void fence(Strength strength);
  // What it reads there.
  void read(const std::vector<Message>& messages, Strength strength);
  // What it leaves where it writes now.
  [[nodiscard]] Message message(Strength strength);

  [[nodiscard]] const Misunderstandings& missed() const { return *missed_; }

 private:
  std::optional<Message> fenced_;      // what its last fence lets relaxed writes tell
  std::vector<Message> seen_;          // what its next fence lets it know
  std::optional<Message> unreleased_;  // what a relaxed write might have told
  Clock unreleased_at_ = 0;
  Misunderstandings* missed_;
};

}  // namespace gpusim
