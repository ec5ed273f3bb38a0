// SPDX-License-Identifier: MIT
// The control plane: owns every decision and every page; the execution plane owns every tensor.
//
// One thread at a time. A call that throws leaves the scheduler as it was: std::invalid_argument
// for a bad value, std::runtime_error for a call out of order.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ts/admission_policy.h"
#include "ts/config.h"
#include "ts/further_groups.h"
#include "ts/in_flight.h"
#include "ts/kv_events.h"
#include "ts/lifecycle.h"
#include "ts/occupant.h"
#include "ts/page_pool.h"
#include "ts/plan.h"
#include "ts/planned_step.h"
#include "ts/prefix_cache.h"
#include "ts/request.h"
#include "ts/salt.h"
#include "ts/slot.h"
#include "ts/step.h"
#include "ts/tps_floor.h"
#include "ts/transfers.h"
#include "ts/waiting_queue.h"

namespace ts {

struct Stats {
  std::int32_t waiting = 0;       // submitted, without a slot
  std::int32_t running = 0;       // with a slot, and not ended
  std::int32_t loading = 0;       // of those, waiting for pages of the host tier or a peer
  std::int32_t pages_used = 0;    // referenced by a sequence
  std::int32_t pages_cached = 0;  // in the prefix cache, referenced by no sequence
  std::int32_t pages_free = 0;
  std::int32_t host_pages_cached = 0;    // in the host tier
  std::int64_t prefix_query_tokens = 0;  // prompt tokens looked up at first admission
  std::int64_t prefix_hit_tokens = 0;    // of those, found
  std::int64_t retractions = 0;
  std::int64_t steps = 0;  // committed
};

class Scheduler {
 public:
  // `hash_mask` narrows the prefix cache's hash so that tests can provoke collisions.
  explicit Scheduler(const SchedulerConfig& config, ContentHash hash_mask = ~ContentHash{0});
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  void submit(const Submission& submission);

  // True if the request was alive and is ended by this call: no output will mention it again.
  bool abort(RequestId id);

  // Plans and launches the next step into plan_buffers(); false if there is nothing to run now.
  bool plan();

  // The tokens that `step` yielded into output_buffers(): those of the first sampling row, then of
  // the next, `counts` of each (empty: one each); kNoToken where none could be sampled, which ends
  // the request as failed. `seconds`: how long the step took, 0 if unknown.
  void commit(std::uint64_t step, std::span<const Token> sampled,
              std::span<const std::int32_t> counts = {}, double seconds = 0);

  // A transfer of a plan has ended, well or not; in any order, whether or not its step is
  // committed.
  void complete_transfer(std::uint64_t id, bool ok);

  // Transfers with a peer that have been under way for peer_timeout or longer, until they end.
  // `now`: seconds on a clock that never goes back; a transfer's time begins with the first call
  // after the plan that named it. Nothing is released here, since a peer may still be reading or
  // writing: the execution plane stops the transfer, and says so with complete_transfer(id, false).
  [[nodiscard]] std::vector<std::uint64_t> overdue_transfers(double now);

  // The msgpack payload of the events since the last call; empty if there were none.
  [[nodiscard]] std::string drain_kv_events(double timestamp);

  // Begins the events anew: the next payload says what is cached now, to somebody who knows nothing
  // or something else.
  void announce_cache() { cache_.announce(); }

  // Empties the prefix cache; false (and nothing changes) while a sequence holds pages.
  bool clear_prefix_cache();

  [[nodiscard]] Stats stats() const;
  [[nodiscard]] FloorReport floor() { return floor_.report(); }
  [[nodiscard]] const SchedulerConfig& config() const { return config_; }
  // Of the last step planned; they stay as they are until that step is committed.
  [[nodiscard]] Plan& plan_buffers() { return current_->plan; }
  [[nodiscard]] std::size_t current_buffers() const {
    return static_cast<std::size_t>(current_ - steps_.data());
  }
  [[nodiscard]] Plan& plan_buffers(std::size_t at) { return steps_[at].plan; }
  [[nodiscard]] Output& output_buffers() { return output_; }

  // Throws std::logic_error naming the first violated invariant; O(pages), for tests.
  void check_invariants() const;

 private:
  using Slot = Occupant;

  struct Chunk {
    SlotId slot;
    std::int32_t tokens;
  };

  // plan(), in the order of calls (planning.cpp, admission.cpp)
  struct Decodes {
    bool others;    // somebody does not decode
    bool gave_way;  // somebody did, for want of pages
  };
  [[nodiscard]] Decodes plan_decodes();
  [[nodiscard]] bool take_pages_to_go_on(std::size_t at, bool& gave_way);
  [[nodiscard]] PagePool* lacking(SlotId id);
  [[nodiscard]] bool can_go_on(SlotId id) { return !shortage_ || lacking(id) == nullptr; }
  [[nodiscard]] bool give_way();
  void retract(std::size_t at);
  void plan_decode(InFlight<Decoding>& decoding, std::int32_t younger);
  [[nodiscard]] std::int32_t room_for_drafts(Sequence& sequence, std::int32_t younger);
  void heed_floor(const Sequence& sequence);
  void plan_prefills();
  void plan_chunk(Sequence& sequence);
  [[nodiscard]] std::int32_t longest_chunk(const Sequence& sequence) const;
  void note_held(Sequence& sequence, std::int32_t tokens);
  void find_computing();
  void admit_waiting();
  [[nodiscard]] StepShape everyone_decoding() const;
  void seat(WaitingQueue::Iterator& at);
  void begin_load(WaitingQueue::Entry& entry, Seat&& seat, std::span<const BlockId> in_host);
  void begin_receive(WaitingQueue::Entry& entry, Seat&& seat);
  void take_pages_to_load(std::int32_t columns, Holdings& seat, Load& load);
  void begin_prefill(SlotId id);
  void launch_chunk(const Chunk& chunk);

  // commit() (commit.cpp)
  void check_commit(std::uint64_t step, std::span<const Token> sampled,
                    std::span<const std::int32_t> counts, double seconds) const;
  void prefetch_row(const std::vector<PlannedStep::Row>& rows, std::size_t at);
  void commit_row(const PlannedStep::Row& row, const StepToken& token,
                  std::span<const Token> sampled, std::int32_t sampling_row);
  void cache_full_pages(Sequence& sequence, const StepToken& token);
  void finish(SlotId id, const StepToken& token, FinishReason reason);
  void drain(SlotId id, const StepToken& token);
  void send(SlotId id, const StepToken& token);
  void free_replaced(const StepToken& token);

  // What a request that fails may have spoilt (suspects.cpp)
  void prove_pages(Sequence& sequence, StepId step);
  void withdraw_unproven_pages(const Sequence& sequence);
  [[nodiscard]] bool builds_on_withdrawn(const SequencePages& pages) const;

  // complete_transfer() (complete_transfer.cpp)
  void arrived(SlotId id, Loading&& loading, bool ok, bool withdrawn);
  void release_transferred(SlotId id, const TransferToken& token);

  // check_invariants()
  void check_transfers(std::int32_t loading, std::int32_t sending) const;
  void check_groups() const;
  void check_names() const;
  void check_reach(const Sequence& sequence, const GroupPages& pages) const;

  void release(Seat&& seat, const StepToken& token);
  [[nodiscard]] std::span<const Token> page_tokens(const Request& request,
                                                   std::int32_t column) const;
  [[nodiscard]] Slot& slot(SlotId id) { return slots_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const Sequence* sequence_in(SlotId id) const {
    return sequence_of(slots_[static_cast<std::size_t>(id)]);
  }
  [[nodiscard]] Sequence* running_in(SlotId id) { return running_sequence_of(slot(id)); }
  [[nodiscard]] InFlight<Decoding>* decoding_in(SlotId id) {
    return std::get_if<InFlight<Decoding>>(&slot(id));
  }
  [[nodiscard]] InFlight<Prefilling>* prefilling_in(SlotId id) {
    return std::get_if<InFlight<Prefilling>>(&slot(id));
  }
  [[nodiscard]] bool in_flight_in(SlotId id) const {
    return is_in_flight(slots_[static_cast<std::size_t>(id)], clock_.retired());
  }
  // Is there a token to be decoded that no step in flight already yields?
  [[nodiscard]] static bool may_decode(const Sequence& sequence) {
    return sequence.launched() + 1 < sequence.request().stop.max_length();
  }
  [[nodiscard]] std::int32_t budget_left() const {
    return config_.max_num_batched_tokens - current_->plan.num_tokens;
  }

  SchedulerConfig config_;
  KvEventLog events_;
  SaltTable salts_;
  RequestPool requests_;
  PrefixCache cache_;
  PagePool pool_;  // full attention's
  FurtherGroups groups_;
  AdmissionPolicy admission_;
  SlotPool slot_pool_;
  StepClock clock_;
  Transfers transfers_;
  WaitingQueue waiting_;
  std::vector<Slot> slots_;
  std::vector<SlotId> running_;  // not ended, in service order: the youngest is last

  struct Place {
    ServiceOrder order;
    SlotId slot;  // kNoSlot: waiting
  };
  std::unordered_map<RequestId, Place> places_;

  std::vector<PlannedStep> steps_;  // buffers: as many as may be in flight
  PlannedStep* current_ = nullptr;  // planned last
  Output output_;
  TpsFloor floor_;

  // Scratch of plan().
  std::size_t able_ = 0;   // running_ from here on give way in this step
  bool shortage_ = false;  // somebody before able_ lacks a page nevertheless
  std::vector<Chunk> chunks_;

  std::int32_t draining_ = 0;                 // sequences whose last step is in flight
  std::deque<InFlight<PageLease>> replaced_;  // by a cached page of the same content
  std::uint64_t arrivals_ = 0;
  Stats totals_;
};

// The pool of a page without which the sequence cannot go on; null if there is none. (What a
// prefill needs of the full-attention pool is promised to it.)
inline PagePool* Scheduler::lacking(SlotId id) {
  const InFlight<Decoding>* const decoding = decoding_in(id);
  if (decoding != nullptr) {
    const Sequence& sequence = decoding->peek();
    if (!may_decode(sequence)) return nullptr;
    if (sequence.launched() >= sequence.pages().columns() * config_.page_size) return &pool_;
    return sequence.groups().empty() ? nullptr : groups_.lacking(sequence, true);
  }
  const InFlight<Prefilling>* const prefilling = prefilling_in(id);
  if (prefilling == nullptr || prefilling->peek().groups().empty()) return nullptr;
  return groups_.lacking(prefilling->peek(), false);
}

}  // namespace ts
