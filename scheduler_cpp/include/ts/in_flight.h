// SPDX-License-Identifier: MIT
// InFlight<T>: something that a step (or, with a TransferToken, a transfer) names. It can be read;
// the only way to own it again is to show a token which proves that the last of them has retired.
#pragma once

#include <stdexcept>
#include <type_traits>
#include <utility>

#include "ts/step.h"

namespace ts {

template <class T, class Token = StepToken>
class [[nodiscard]] InFlight {
  static_assert(!std::is_reference_v<T>);

 public:
  using Name = typename Token::Name;

  InFlight(T&& content, Name last) : content_(std::move(content)), last_(last) {}
  InFlight(InFlight&&) noexcept = default;
  InFlight& operator=(InFlight&&) noexcept = default;
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

  [[nodiscard]] T retire(const Token& token) && {
    if (!landed(token)) throw std::logic_error("retired with the token of an earlier step");
    return std::move(content_);
  }

  // Does this token retire it?
  [[nodiscard]] bool landed(const Token& token) const { return token.covers(last_); }

  // One more, later step names it.
  void named_by(Name later) { last_ = later; }

  // Changes what the content *is* while it stays in flight (aborting a running request). The
  // transition is a compile-time constant, so it cannot carry a pool to give pages back to.
  template <auto Transition>
  [[nodiscard]] auto become() && {
    using Next = std::invoke_result_t<decltype(Transition), T&&>;
    return InFlight<Next, Token>(Transition(std::move(content_)), last_);
  }

  [[nodiscard]] const T& peek() const { return content_; }

  // The part of the content that may change while it is in flight: a base of T that cannot be
  // moved from.
  [[nodiscard]] auto& while_in_flight()
    requires requires { typename T::WhileInFlight; }
  {
    using Part = typename T::WhileInFlight;
    static_assert(std::is_base_of_v<Part, T> && !std::is_move_constructible_v<Part>);
    return static_cast<Part&>(content_);
  }

 private:
  T content_;
  Name last_;
};

}  // namespace ts
