// SPDX-License-Identifier: MIT
// What is in a slot, and what may be asked of it whatever its state. Whoever rests stays InFlight,
// too: the token of the last step that named it takes it out.
#pragma once

#include <variant>

#include "ts/in_flight.h"
#include "ts/lifecycle.h"
#include "ts/step.h"
#include "ts/transfer.h"

namespace ts {

using Occupant =
    std::variant<std::monostate, InFlight<Prefilling>, InFlight<Decoding>, InFlight<Draining>,
                 InFlight<Loading, TransferToken>, InFlight<Receiving, TransferToken>,
                 InFlight<Draining, TransferToken>, InFlight<Sending, TransferToken>>;

// Asked of every row, several times a step: decoding sequences first.

// Its sequence; null if there is none (empty, draining or sending).
[[nodiscard]] inline const Sequence* sequence_of(const Occupant& occupant) {
  if (const auto* decoding = std::get_if<InFlight<Decoding>>(&occupant)) return &decoding->peek();
  if (const auto* prefilling = std::get_if<InFlight<Prefilling>>(&occupant)) {
    return &prefilling->peek();
  }
  if (const auto* loading = std::get_if<InFlight<Loading, TransferToken>>(&occupant)) {
    return &loading->peek();
  }
  const auto* receiving = std::get_if<InFlight<Receiving, TransferToken>>(&occupant);
  return receiving == nullptr ? nullptr : &receiving->peek();
}

// The same, to be changed; null also while it is loading.
[[nodiscard]] inline Sequence* running_sequence_of(Occupant& occupant) {
  if (auto* decoding = std::get_if<InFlight<Decoding>>(&occupant)) {
    return &decoding->while_in_flight();
  }
  auto* prefilling = std::get_if<InFlight<Prefilling>>(&occupant);
  return prefilling == nullptr ? nullptr : &prefilling->while_in_flight();
}

[[nodiscard]] inline bool is_loading(const Occupant& occupant) {
  return std::holds_alternative<InFlight<Loading, TransferToken>>(occupant) ||
         std::holds_alternative<InFlight<Receiving, TransferToken>>(occupant);
}

// Does a step that has not `retired`, or a transfer under way, name its sequence?
[[nodiscard]] inline bool is_in_flight(const Occupant& occupant, const StepToken& retired) {
  if (const auto* decoding = std::get_if<InFlight<Decoding>>(&occupant)) {
    return !decoding->landed(retired);
  }
  if (const auto* prefilling = std::get_if<InFlight<Prefilling>>(&occupant)) {
    return !prefilling->landed(retired);
  }
  return is_loading(occupant);
}

}  // namespace ts
