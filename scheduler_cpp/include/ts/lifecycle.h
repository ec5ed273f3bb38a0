// SPDX-License-Identifier: MIT
// The life of a request. Each state is a type that owns what the state may hold; a transition
// consumes one and returns the next, so what is not in the table does not compile.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ts/group_pages.h"
#include "ts/in_flight.h"
#include "ts/page.h"
#include "ts/page_pool.h"
#include "ts/request.h"
#include "ts/sequence_pages.h"
#include "ts/slot.h"
#include "ts/transfer.h"
#include "ts/types.h"

namespace ts {

// Columns whose pages were loaded, and how those were computed (forms.h).
struct LoadedPages {
  std::int32_t first_column = 0;
  std::vector<std::int32_t> expanded = {};
};

// What a running sequence holds of the device.
struct Holdings {
  SlotLease slot;
  SequencePages pages;
  Reservation promised;            // the pages to finish the prefill that are not taken yet
  std::vector<GroupPages> groups;  // of further cache groups
  LoadedPages loaded = {};
};

// The right to them goes from state to state; they stay where they are.
using Seat = std::unique_ptr<Holdings>;

// What may be done to a running sequence whether or not a step names it: nothing here gives up a
// page that a step may still touch, and a Sequence cannot be moved, so not even by accident.
class Sequence {
 public:
  [[nodiscard]] Request& request() { return *request_; }
  [[nodiscard]] const Request& request() const { return *request_; }
  [[nodiscard]] const Holdings& holdings() const { return *seat_; }
  [[nodiscard]] SlotId slot() const { return seat_->slot.id(); }
  [[nodiscard]] SequencePages& pages() { return seat_->pages; }
  [[nodiscard]] const SequencePages& pages() const { return seat_->pages; }
  [[nodiscard]] std::vector<GroupPages>& groups() { return seat_->groups; }
  [[nodiscard]] const std::vector<GroupPages>& groups() const { return seat_->groups; }
  [[nodiscard]] LoadedPages& loaded_pages() { return seat_->loaded; }
  // How the page of a column was computed.
  [[nodiscard]] std::int32_t expanded_in(std::int32_t column, std::int32_t page_size) const {
    const LoadedPages& loaded = seat_->loaded;
    const auto at = static_cast<std::size_t>(column - loaded.first_column);
    if (column >= loaded.first_column && at < loaded.expanded.size()) return loaded.expanded[at];
    return request_->forms.expanded_in(column, page_size);
  }
  [[nodiscard]] Reservation& promised() { return seat_->promised; }
  [[nodiscard]] const Reservation& promised() const { return seat_->promised; }

  // Tokens whose KV is computed, by steps that have been committed.
  [[nodiscard]] std::int32_t computed() const { return computed_; }
  // The same with what steps in flight compute, their drafts counted as accepted.
  [[nodiscard]] std::int32_t launched() const { return launched_; }
  // The form of the next token (forms.h).
  [[nodiscard]] bool absorbs() const { return launched_ >= request_->forms.expanded_length; }
  // Where the next step's tokens begin at the earliest: if every draft in flight is rejected.
  [[nodiscard]] std::int32_t launched_at_least() const { return launched_ - drafts_in_flight_; }

  // A step computes `tokens` more, of which the last `drafts` may be rejected.
  void launch(std::int32_t tokens, std::int32_t drafts) {
    launched_ += tokens;
    drafts_in_flight_ += drafts;
  }
  // Such a step has retired; `rejected` of its drafts do not count.
  void commit(std::int32_t tokens, std::int32_t drafts, std::int32_t rejected) {
    computed_ += tokens - rejected;
    launched_ -= rejected;
    drafts_in_flight_ -= drafts;
  }

 protected:
  Sequence(RequestPtr request, Seat&& seat, std::int32_t computed)
      : request_(std::move(request)),
        seat_(std::move(seat)),
        computed_(computed),
        launched_(computed) {}
  Sequence(Sequence&& from, std::int32_t computed)
      : Sequence(std::move(from.request_), std::move(from.seat_), computed) {}
  Sequence(Sequence&&) noexcept = default;
  Sequence& operator=(Sequence&&) noexcept = default;
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence() = default;

 private:
  friend struct Lifecycle;
  RequestPtr request_;
  Seat seat_;
  std::int32_t computed_;
  std::int32_t launched_;
  std::int32_t drafts_in_flight_ = 0;
};

class Waiting {
 public:
  [[nodiscard]] Request& request() { return *request_; }
  [[nodiscard]] const Request& request() const { return *request_; }

 private:
  friend struct Lifecycle;
  explicit Waiting(RequestPtr request) : request_(std::move(request)) {}
  RequestPtr request_;
};

class Prefilling : public Sequence {
 public:
  using WhileInFlight = Sequence;

 private:
  friend struct Lifecycle;
  Prefilling(RequestPtr request, Seat&& seat, std::int32_t computed)
      : Sequence(std::move(request), std::move(seat), computed) {}
  Prefilling(Sequence&& from, std::int32_t computed) : Sequence(std::move(from), computed) {}
};

// Its prefix is in the host tier, and pages of it are on their way to the device. Everything that
// its prefill needs is reserved, so no two of them can wait for each other.
class Loading : public Sequence {
 public:
  // Tokens with KV, once it ends well.
  [[nodiscard]] std::int32_t loaded() const { return loaded_; }

 protected:
  friend struct Lifecycle;
  Loading(RequestPtr request, Seat&& seat, std::int32_t cached, std::int32_t loaded)
      : Sequence(std::move(request), std::move(seat), cached), loaded_(loaded) {}
  std::int32_t loaded_;
};

// The same, with the pages coming from the peer that computed the prompt.
class Receiving : public Loading {
 private:
  friend struct Lifecycle;
  using Loading::Loading;
};

// Every token but the last is computed, or will be by the steps in flight.
class Decoding : public Sequence {
 public:
  using WhileInFlight = Sequence;

 private:
  friend struct Lifecycle;
  explicit Decoding(Sequence&& from) : Sequence(std::move(from)) {}
};

class Retracted {  // its pages were given back; tokens and place in the queue are kept
 public:
  [[nodiscard]] Request& request() { return *request_; }
  [[nodiscard]] const Request& request() const { return *request_; }

 private:
  friend struct Lifecycle;
  explicit Retracted(RequestPtr request) : request_(std::move(request)) {}
  RequestPtr request_;
};

class Sending {  // its output has ended here; a peer reads its pages
 public:
  [[nodiscard]] const Holdings& holdings() const { return *seat_; }

 private:
  friend struct Lifecycle;
  explicit Sending(Seat&& seat) : seat_(std::move(seat)) {}
  Seat seat_;
};

class Draining {  // ended while a step that names its pages is in flight
 public:
  [[nodiscard]] const Holdings& holdings() const { return *seat_; }

 private:
  friend struct Lifecycle;
  explicit Draining(Seat&& seat) : seat_(std::move(seat)) {}
  Seat seat_;
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
};

// The transition table.
struct Lifecycle {
  // clang-format off
  //     to                   event    from
  static Waiting              submit  (RequestPtr);
  static Prefilling           admit   (Waiting&&,    Seat&&, std::int32_t cached);
  static Prefilling           admit   (Retracted&&,  Seat&&, std::int32_t cached);
  static Loading              load    (Waiting&&,    Seat&&, std::int32_t cached, std::int32_t loaded);
  static Loading              load    (Retracted&&,  Seat&&, std::int32_t cached, std::int32_t loaded);
  static Receiving            receive (Waiting&&,    Seat&&, std::int32_t cached, std::int32_t loaded);
  static Prefilling           loaded  (Loading&&);                // its transfer has ended well
  static Prefilling           failed  (Loading&&);                // what was to be loaded is computed
  static Decoding             decode  (Prefilling&&);             // its last chunk is launched
  static InFlight<Decoding>   decode  (InFlight<Prefilling>&&);
  static Leaving<Retracted>   retract (Prefilling&&);             // pages ran out
  static Leaving<Retracted>   retract (Decoding&&);
  static Leaving<Finished>    finish  (Decoding&&);               // stop, length or failed
  static InFlight<Draining>   finish  (InFlight<Decoding>&&);     // a stop found while the next step runs
  static Finished             abort   (Waiting&&);
  static Finished             abort   (Retracted&&);
  static Leaving<Finished>    abort   (Prefilling&&);
  static Leaving<Finished>    abort   (Decoding&&);
  static InFlight<Draining>   abort   (InFlight<Prefilling>&&);
  static InFlight<Draining>   abort   (InFlight<Decoding>&&);
  static InFlight<Draining, TransferToken> abort (InFlight<Loading, TransferToken>&&);
  static InFlight<Draining, TransferToken> abort (InFlight<Receiving, TransferToken>&&);
  static Sending              send    (Decoding&&);               // what was asked for here is done
  static Leaving<Finished>    sent    (Sending&&);                // the peer has read its pages
  static Leaving<Finished>    drain   (Draining&&);               // the last step, or the transfer, has retired
  // clang-format on

 private:
  static Seat leave(Sequence&& from) { return std::move(from.seat_); }
  static Draining end_prefilling(Prefilling&& from);
  static Draining end_decoding(Decoding&& from);
  static Draining end_loading(Loading&& from);
  static Draining end_receiving(Receiving&& from);
};

}  // namespace ts
