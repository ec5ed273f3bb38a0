// SPDX-License-Identifier: MIT
// The control plane: owns every decision and every page; the execution plane owns every tensor.
//
// One thread at a time. A call that throws leaves the scheduler as it was: std::invalid_argument
// for a bad value, std::runtime_error for a call out of order.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "ts/config.h"
#include "ts/in_flight.h"
#include "ts/kv_events.h"
#include "ts/lifecycle.h"
#include "ts/page_pool.h"
#include "ts/plan.h"
#include "ts/prefix_cache.h"
#include "ts/request.h"
#include "ts/salt.h"
#include "ts/slot.h"
#include "ts/step.h"
#include "ts/waiting_queue.h"

namespace ts {

struct Stats {
  std::int32_t waiting = 0;       // submitted, without a slot
  std::int32_t running = 0;       // with a slot, and not ended
  std::int32_t pages_used = 0;    // referenced by a sequence
  std::int32_t pages_cached = 0;  // in the prefix cache, referenced by no sequence
  std::int32_t pages_free = 0;
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

  // Plans and launches the next step into plan_buffers(); false if there is nothing to run.
  bool plan();

  // The tokens sampled by `step`, one per sampling row in row order, into output_buffers().
  void commit(std::uint64_t step, std::span<const Token> sampled);

  // The msgpack payload of the events since the last call; empty if there were none.
  [[nodiscard]] std::string drain_kv_events(double timestamp);

  // Empties the prefix cache; false (and nothing changes) while a sequence holds pages.
  bool clear_prefix_cache();

  [[nodiscard]] Stats stats() const;
  [[nodiscard]] const SchedulerConfig& config() const { return config_; }
  [[nodiscard]] Plan& plan_buffers() { return plan_; }
  [[nodiscard]] Output& output_buffers() { return output_; }

  // Throws std::logic_error naming the first violated invariant; O(pages), for tests.
  void check_invariants() const;

 private:
  using Slot = std::variant<std::monostate, Prefilling, Decoding, InFlight<Prefilling>,
                            InFlight<Decoding>, InFlight<Draining>>;

  // A row of the step in flight: what commit needs to know about it.
  struct Row {
    SlotId slot;
    std::int32_t tokens;
    bool samples;
  };

  struct Chunk {
    SlotId slot;
    std::int32_t tokens;
  };

  // plan(), in the order of calls (planning.cpp, admission.cpp)
  bool take_decode_pages();
  bool take_decode_page(SlotId slot);
  void retract(SlotId slot);
  void plan_decodes();
  void plan_prefills();
  void plan_chunk(SlotId slot, Prefilling& state);
  void admit_waiting();
  enum class Admission : std::uint8_t { kFits, kBlocked, kWaits };
  [[nodiscard]] Admission consider(Request& request);
  [[nodiscard]] std::int32_t promise_to(const Request& request) const;
  [[nodiscard]] bool emit_admission(const Request& request);
  void seat(WaitingQueue::Iterator& at);
  void emit_row(SlotId slot, Seat& seat, std::int32_t start, std::int32_t tokens, bool samples);
  void emit_page_patches(Seat& seat);
  void launch(StepId step);

  // commit() (commit.cpp)
  void check_commit(std::uint64_t step, std::span<const Token> sampled) const;
  void prefetch_row(std::size_t at);
  void commit_row(const Row& row, const StepToken& token, std::span<const Token> sampled,
                  std::int32_t& sample);
  void commit_sample(Decoding&& state, Token token, std::int32_t sample);
  void cache_full_pages(const Request& request, SequencePages& pages, std::int32_t computed);

  void release(Seat&& seat, Reservation&& promised);
  [[nodiscard]] std::span<const Token> page_tokens(const Request& request,
                                                   std::int32_t column) const;
  [[nodiscard]] Slot& slot(SlotId id) { return slots_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const Request& request_in(SlotId id) const;
  [[nodiscard]] std::int32_t budget_left() const {
    return config_.max_num_batched_tokens - plan_.num_tokens;
  }

  SchedulerConfig config_;
  KvEventLog events_;
  SaltTable salts_;
  RequestPool requests_;
  PrefixCache cache_;
  PagePool pool_;
  SlotPool slot_pool_;
  StepClock clock_;
  WaitingQueue waiting_;
  std::vector<Slot> slots_;
  std::vector<SlotId> running_;  // not ended, in service order: the youngest is last

  struct Place {
    ServiceOrder order;
    SlotId slot;  // kNoSlot: waiting
  };
  std::unordered_map<RequestId, Place> places_;

  Plan plan_;
  Output output_;
  std::vector<Row> rows_;  // of the step in flight
  std::int32_t sampling_rows_ = 0;
  std::vector<Chunk> chunks_;           // scratch of plan()
  std::vector<ContentHash> computing_;  // pages that this step's prefills compute next
  PrefixMatch match_;                   // scratch of admission
  std::vector<Request*> blocked_;
  std::uint64_t arrivals_ = 0;
  Stats totals_;
};

}  // namespace ts
