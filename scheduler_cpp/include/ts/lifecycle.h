// SPDX-License-Identifier: MIT
// The life of a request. Each state is a type that owns what the state may hold; a transition
// consumes one and returns the next, so what is not in the table does not compile.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "ts/in_flight.h"
#include "ts/page.h"
#include "ts/page_pool.h"
#include "ts/request.h"
#include "ts/slot.h"
#include "ts/types.h"

namespace ts {

// The pages of one sequence in column order: shared ones, then those it may write.
struct SequencePages {
  std::vector<SharedPage> prefix;
  std::vector<PageLease> tail;
  std::int32_t sent = 0;  // columns before this one are in the device's block table
  bool cacheable = true;  // false once a page could not enter the cache: none behind it can

  [[nodiscard]] std::int32_t columns() const {
    return static_cast<std::int32_t>(prefix.size() + tail.size());
  }
};

// What a running sequence holds of the device.
struct Seat {
  SlotLease slot;
  SequencePages pages;
};

class Waiting {
 public:
  [[nodiscard]] Request& request() { return *request_; }

 private:
  friend struct Lifecycle;
  explicit Waiting(RequestPtr request) : request_(std::move(request)) {}
  RequestPtr request_;
};

class Prefilling {
 public:
  [[nodiscard]] Request& request() { return *request_; }
  [[nodiscard]] const Request& request() const { return *request_; }
  [[nodiscard]] Seat& seat() { return seat_; }
  [[nodiscard]] const Seat& seat() const { return seat_; }
  [[nodiscard]] Reservation& promised() { return promised_; }
  [[nodiscard]] const Reservation& promised() const { return promised_; }
  [[nodiscard]] std::int32_t computed() const { return computed_; }  // tokens with KV
  void advance(std::int32_t tokens) { computed_ += tokens; }

 private:
  friend struct Lifecycle;
  Prefilling(RequestPtr request, Seat&& seat, Reservation&& promised, std::int32_t computed)
      : request_(std::move(request)),
        seat_(std::move(seat)),
        promised_(std::move(promised)),
        computed_(computed) {}
  RequestPtr request_;
  Seat seat_;
  Reservation promised_;  // the pages to finish the prefill that are not taken yet
  std::int32_t computed_;
};

class Decoding {  // at rest, every token but the last has its KV computed
 public:
  [[nodiscard]] Request& request() { return *request_; }
  [[nodiscard]] const Request& request() const { return *request_; }
  [[nodiscard]] Seat& seat() { return seat_; }
  [[nodiscard]] const Seat& seat() const { return seat_; }
  [[nodiscard]] std::int32_t computed() const { return computed_; }  // tokens with KV
  void advance() { ++computed_; }

 private:
  friend struct Lifecycle;
  Decoding(RequestPtr request, Seat&& seat, std::int32_t computed)
      : request_(std::move(request)), seat_(std::move(seat)), computed_(computed) {}
  RequestPtr request_;
  Seat seat_;
  std::int32_t computed_;
};

class Retracted {  // its pages were given back; tokens and place in the queue are kept
 public:
  [[nodiscard]] Request& request() { return *request_; }

 private:
  friend struct Lifecycle;
  explicit Retracted(RequestPtr request) : request_(std::move(request)) {}
  RequestPtr request_;
};

class Draining {  // ended while a step that names its pages is in flight
 public:
  [[nodiscard]] const Seat& seat() const { return seat_; }
  [[nodiscard]] const Reservation& promised() const { return promised_; }

 private:
  friend struct Lifecycle;
  Draining(Seat&& seat, Reservation&& promised)
      : seat_(std::move(seat)), promised_(std::move(promised)) {}
  Seat seat_;
  Reservation promised_;
};

class Finished {
 private:
  friend struct Lifecycle;
  Finished() = default;
};

// A state that holds nothing of the device, and what the state before it held.
template <class State>
struct [[nodiscard]] Leaving {
  State state;
  Seat seat;
  Reservation promised;
};

// The transition table.
struct Lifecycle {
  // clang-format off
  //     to                   event    from
  static Waiting              submit  (RequestPtr);
  static Prefilling           admit   (Waiting&&,    Seat&&, Reservation&&, std::int32_t cached);
  static Prefilling           admit   (Retracted&&,  Seat&&, Reservation&&, std::int32_t cached);
  static Decoding             decode  (Prefilling&&);  // its last chunk is computed
  static Leaving<Retracted>   retract (Prefilling&&);  // pages ran out
  static Leaving<Retracted>   retract (Decoding&&);
  static Leaving<Finished>    finish  (Decoding&&);    // stop or length
  static Finished             abort   (Waiting&&);
  static Finished             abort   (Retracted&&);
  static Leaving<Finished>    abort   (Prefilling&&);
  static Leaving<Finished>    abort   (Decoding&&);
  static InFlight<Draining>   abort   (InFlight<Prefilling>&&);
  static InFlight<Draining>   abort   (InFlight<Decoding>&&);
  static Leaving<Finished>    drain   (Draining&&);    // the step has retired
  // clang-format on

 private:
  static Draining end_prefilling(Prefilling&& from);
  static Draining end_decoding(Decoding&& from);
};

}  // namespace ts
