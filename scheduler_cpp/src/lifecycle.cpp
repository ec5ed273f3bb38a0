// SPDX-License-Identifier: MIT
#include "ts/lifecycle.h"

namespace ts {

Waiting Lifecycle::submit(RequestPtr request) {
  return Waiting(std::move(request));
}

Prefilling Lifecycle::admit(Waiting&& from, Seat&& seat, std::int32_t cached) {
  return {std::move(from.request_), std::move(seat), cached};
}

Prefilling Lifecycle::admit(Retracted&& from, Seat&& seat, std::int32_t cached) {
  return {std::move(from.request_), std::move(seat), cached};
}

Loading Lifecycle::load(Waiting&& from, Seat&& seat, std::int32_t cached, std::int32_t loaded) {
  return {std::move(from.request_), std::move(seat), cached, loaded};
}

Loading Lifecycle::load(Retracted&& from, Seat&& seat, std::int32_t cached, std::int32_t loaded) {
  return {std::move(from.request_), std::move(seat), cached, loaded};
}

Receiving Lifecycle::receive(Waiting&& from, Seat&& seat, std::int32_t cached,
                             std::int32_t loaded) {
  return {std::move(from.request_), std::move(seat), cached, loaded};
}

Prefilling Lifecycle::loaded(Loading&& from) {
  const std::int32_t computed = from.loaded_;
  return {static_cast<Sequence&&>(from), computed};
}

Prefilling Lifecycle::failed(Loading&& from) {
  const std::int32_t computed = from.computed();
  return {static_cast<Sequence&&>(from), computed};
}

Decoding Lifecycle::decode(Prefilling&& from) {
  TS_ASSERT(from.promised().pages() == 0);
  TS_ASSERT(from.launched() == from.request().length());
  return Decoding(static_cast<Sequence&&>(from));
}

InFlight<Decoding> Lifecycle::decode(InFlight<Prefilling>&& from) {
  constexpr auto transition = static_cast<Decoding (*)(Prefilling&&)>(&Lifecycle::decode);
  return std::move(from).become<transition>();
}

Leaving<Retracted> Lifecycle::retract(Prefilling&& from) {
  return {Retracted(std::move(from.request_)), leave(std::move(from))};
}

Leaving<Retracted> Lifecycle::retract(Decoding&& from) {
  return {Retracted(std::move(from.request_)), leave(std::move(from))};
}

Leaving<Finished> Lifecycle::finish(Decoding&& from) {
  return {Finished(), leave(std::move(from))};
}

Draining Lifecycle::end_prefilling(Prefilling&& from) {
  return Draining(leave(std::move(from)));
}

Draining Lifecycle::end_decoding(Decoding&& from) {
  return Draining(leave(std::move(from)));
}

Draining Lifecycle::end_loading(Loading&& from) {
  return Draining(leave(std::move(from)));
}

Draining Lifecycle::end_receiving(Receiving&& from) {
  return Draining(leave(std::move(from)));
}

InFlight<Draining, TransferToken> Lifecycle::abort(InFlight<Receiving, TransferToken>&& from) {
  return std::move(from).become<&Lifecycle::end_receiving>();
}

Sending Lifecycle::send(Decoding&& from) {
  return Sending(leave(std::move(from)));
}

Leaving<Finished> Lifecycle::sent(Sending&& from) {
  return {Finished(), std::move(from.seat_)};
}

InFlight<Draining, TransferToken> Lifecycle::abort(InFlight<Loading, TransferToken>&& from) {
  return std::move(from).become<&Lifecycle::end_loading>();
}

InFlight<Draining> Lifecycle::finish(InFlight<Decoding>&& from) {
  return std::move(from).become<&Lifecycle::end_decoding>();
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
  return {Finished(), leave(std::move(from))};
}

Leaving<Finished> Lifecycle::abort(Decoding&& from) {
  return {Finished(), leave(std::move(from))};
}

InFlight<Draining> Lifecycle::abort(InFlight<Prefilling>&& from) {
  return std::move(from).become<&Lifecycle::end_prefilling>();
}

InFlight<Draining> Lifecycle::abort(InFlight<Decoding>&& from) {
  return std::move(from).become<&Lifecycle::end_decoding>();
}

Leaving<Finished> Lifecycle::drain(Draining&& from) {
  return {Finished(), std::move(from.seat_)};
}

}  // namespace ts
