// SPDX-License-Identifier: MIT
#include "ts/lifecycle.h"

namespace ts {

Waiting Lifecycle::submit(RequestPtr request) {
  return Waiting(std::move(request));
}

Prefilling Lifecycle::admit(Waiting&& from, Seat&& seat, Reservation&& promised,
                            std::int32_t cached) {
  return {std::move(from.request_), std::move(seat), std::move(promised), cached};
}

Prefilling Lifecycle::admit(Retracted&& from, Seat&& seat, Reservation&& promised,
                            std::int32_t cached) {
  return {std::move(from.request_), std::move(seat), std::move(promised), cached};
}

Decoding Lifecycle::decode(Prefilling&& from) {
  TS_ASSERT(from.promised_.pages() == 0);
  TS_ASSERT(from.computed_ == from.request_->length());
  return {std::move(from.request_), std::move(from.seat_), from.computed_};
}

Leaving<Retracted> Lifecycle::retract(Prefilling&& from) {
  return {Retracted(std::move(from.request_)), std::move(from.seat_), std::move(from.promised_)};
}

Leaving<Retracted> Lifecycle::retract(Decoding&& from) {
  return {Retracted(std::move(from.request_)), std::move(from.seat_), Reservation::none()};
}

Leaving<Finished> Lifecycle::finish(Decoding&& from) {
  return {Finished(), std::move(from.seat_), Reservation::none()};
}

Finished Lifecycle::abort(Waiting&& from) {
  from.request_.reset();
  return {};
}

Finished Lifecycle::abort(Retracted&& from) {
  from.request_.reset();
  return {};
}

Leaving<Finished> Lifecycle::abort(Prefilling&& from) {
  return {Finished(), std::move(from.seat_), std::move(from.promised_)};
}

Leaving<Finished> Lifecycle::abort(Decoding&& from) {
  return {Finished(), std::move(from.seat_), Reservation::none()};
}

Draining Lifecycle::end_prefilling(Prefilling&& from) {
  return {std::move(from.seat_), std::move(from.promised_)};
}

Draining Lifecycle::end_decoding(Decoding&& from) {
  return {std::move(from.seat_), Reservation::none()};
}

InFlight<Draining> Lifecycle::abort(InFlight<Prefilling>&& from) {
  return std::move(from).become<&Lifecycle::end_prefilling>();
}

InFlight<Draining> Lifecycle::abort(InFlight<Decoding>&& from) {
  return std::move(from).become<&Lifecycle::end_decoding>();
}

Leaving<Finished> Lifecycle::drain(Draining&& from) {
  return {Finished(), std::move(from.seat_), std::move(from.promised_)};
}

}  // namespace ts
