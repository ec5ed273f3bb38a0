// SPDX-License-Identifier: MIT
// InFlight<T>: something that a step not yet retired names. It can be read; the only way to own it
// again is to show the token of that step's retirement.
#pragma once

#include <stdexcept>
#include <type_traits>
#include <utility>

#include "ts/step.h"

namespace ts {

template <class T>
class [[nodiscard]] InFlight {
  static_assert(!std::is_reference_v<T>);

 public:
  InFlight(T&& content, StepId last) : content_(std::move(content)), last_(last) {}
  InFlight(InFlight&&) noexcept = default;
  InFlight& operator=(InFlight&&) noexcept = default;
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  [[nodiscard]] T retire(const StepToken& token) && {
    if (!token.covers(last_)) throw std::logic_error("retired with the token of an earlier step");
    return std::move(content_);
  }

  // Changes what the content *is* while it stays in flight (aborting a running request). The
  // transition is a compile-time constant, so it cannot carry a pool to give pages back to.
  template <auto Transition>
  [[nodiscard]] auto become() && {
    using Next = std::invoke_result_t<decltype(Transition), T&&>;
    return InFlight<Next>(Transition(std::move(content_)), last_);
  }

  [[nodiscard]] const T& peek() const { return content_; }

 private:
  T content_;
  StepId last_;
};

}  // namespace ts
