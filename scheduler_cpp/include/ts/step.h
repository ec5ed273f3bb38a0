// SPDX-License-Identifier: MIT
// Steps: launched by the clock, retired in order, each retirement proved by a StepToken.
#pragma once

#include <compare>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace ts {

// Names a step from its launch on. Holding one proves nothing.
class StepId {
 public:
  constexpr explicit StepId(std::uint64_t number) : number_(number) {}
  [[nodiscard]] constexpr std::uint64_t number() const { return number_; }
  constexpr auto operator<=>(const StepId&) const = default;

 private:
  std::uint64_t number_;
};

inline constexpr StepId kNoStep{0};  // retired since ever

// Proof that a step, and with it every earlier one, has retired: no kernel of it still reads or
// writes a page. Only the clock makes one; it lives as long as the commit that received it.
class StepToken {
 public:
  using Name = StepId;  // what is in flight is named by steps

  StepToken(const StepToken&) = delete;
  StepToken& operator=(const StepToken&) = delete;
  [[nodiscard]] bool covers(StepId step) const { return step <= retired_; }
  [[nodiscard]] StepId step() const { return retired_; }

 private:
  friend class StepClock;
  explicit StepToken(StepId retired) : retired_(retired) {}
  StepId retired_;
};

class StepClock {
 public:
  [[nodiscard]] StepId launch() { return StepId(++launched_); }

  // Steps retire in the order of their launch; anything else is a caller's error.
  [[nodiscard]] StepToken retire(StepId step) {
    if (step.number() != retired_ + 1 || retired_ == launched_) {
      throw std::logic_error("step " + std::to_string(step.number()) +
                             " is not the oldest in flight");
    }
    return StepToken(StepId(++retired_));
  }

  // Proof for every step that has retired so far.
  [[nodiscard]] StepToken retired() const { return StepToken(StepId(retired_)); }

  [[nodiscard]] bool in_flight() const { return launched_ != retired_; }
  [[nodiscard]] std::uint64_t steps_in_flight() const { return launched_ - retired_; }
  [[nodiscard]] StepId newest() const { return StepId(launched_); }    // 0: none was launched
  [[nodiscard]] StepId next() const { return StepId(launched_ + 1); }  // to be launched
  [[nodiscard]] StepId oldest_in_flight() const { return StepId(retired_ + 1); }
  [[nodiscard]] std::uint64_t launched() const { return launched_; }

 private:
  std::uint64_t launched_ = 0;
  std::uint64_t retired_ = 0;
};

}  // namespace ts
