// SPDX-License-Identifier: MIT
// Records a launch in the time of a cost model (ts_gpusim/cost_model.py says which, and that it is
// no claim about time): what each warp and each engine of an SM does in which cycles.
//
// Time goes where knowledge goes (happens_before.h): whoever joins what others know is at least as
// late as they were. The launch goes on in the order of model time, so that engines serve first
// whoever comes first, and the seed has no say.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "counters.h"
#include "happens_before.h"
#include "program.h"

namespace gpusim {

class Warp;
struct Dim;

using Cycle = std::uint64_t;

// What works by itself, beside the warps of an SM.
enum class Engine : std::uint8_t {
  kTma,          // bulk and tensor copies between global and shared memory
  kAsyncCopy,    // cp.async
  kNetwork,      // copies from CTA to CTA
  kTensorCores,  // amount: elements of D, for each 32 bytes of K
  kNone,         // only waits for what was begun before
};
inline constexpr std::size_t kEngines = 4;

struct EngineWork {
  Engine engine = Engine::kNone;
  std::uint64_t amount = 0;   // bytes, or as above
  CtaRecord* also = nullptr;  // the second CTA of a pair, whose engine is as busy
};

// A memory or an engine: amounts for a cycle, and how much later they are there.
struct Rate {
  std::uint64_t amount = 1;
  Cycle latency = 0;
};

struct CostModel {
  std::array<Cycle, kWorks> pipe_cycles{};
  Rate shared, distributed, global, tensor_memory;
  std::array<Rate, kEngines> engines{};
};

// A time in which a warp does one kind of thing, or several that were too short to be told apart.
enum class Activity : std::uint8_t {
  kCompute,
  kMemory,
  kTensorMemory,
  kCopy,
  kMma,
  kSynchronise,
  kWait,
};
struct Span {
  Cycle begin, end;
  Activity activity;  // of the longest piece, as what follows
  std::uint32_t pc;
  std::uint32_t cause = 0;    // of a wait: the instruction that ended it
  std::uint64_t barrier = 0;  // of a wait: its number, or where the mbarrier is in shared memory
  Cycle longest = 0;          // piece
  Cycle waited = 0;           // all pieces together
  std::uint64_t pieces = 1;
};

struct Operation {
  Cycle issued, begin, free, end;  // the engine works from begin to free
  std::uint32_t pc;
  std::int32_t warp;
  std::uint64_t amount;
  std::uint64_t operations = 1;
};

// Of a warp of every CTA together.
struct WarpTotals {
  std::vector<std::uint64_t> executed;  // by instruction
  std::array<Cycle, kWorks> busy{};
};

struct WaitKey {
  std::int32_t warp;
  std::uint32_t pc, cause;
  std::uint64_t barrier;
  auto operator<=>(const WaitKey&) const = default;
};
struct WaitTotals {
  std::uint64_t times = 0;
  Cycle cycles = 0;
  Cycle longest = 0;
};

class Timeline {
 public:
  void add(const Span& span, std::size_t most);
  [[nodiscard]] const std::vector<Span>& spans() const { return spans_; }

 private:
  bool merge(const Span& span);

  std::vector<Span> spans_;
  Cycle resolution_ = 1;  // spans that are shorter are merged with their neighbours
};

// What a CTA's SM has, and what it did.
struct CtaRecord {
  struct Load {
    std::int32_t at;  // a register
    std::uint32_t pc;
    Cycle ready;
  };
  struct WarpRecord {
    Timeline timeline;
    std::vector<Load> loads;  // under way
    Cycle loaded = 0;         // when all are there
    Cycle end = 0;
  };
  struct Scheduler {
    Cycle free = 0;
    std::array<Cycle, kWorks> pipes{};
  };
  struct EngineRecord {
    Cycle free = 0;
    Cycle busy = 0;
    std::vector<Operation> operations;
  };

  std::array<std::uint32_t, 3> index{};  // in the grid
  std::uint32_t rank = 0;                // in the cluster
  bool drawn = false;
  Cycle begin = 0;
  Cycle end = 0;
  std::vector<WarpRecord> warps;
  std::array<Scheduler, 4> schedulers{};
  Cycle shared = 0, distributed = 0, global = 0, tensor_memory = 0;  // when they are free
  std::array<EngineRecord, kEngines> engines{};
  std::uint64_t noted = 0;  // the barrier of the instruction that executes
  class Recorder* recorder = nullptr;
};

class Recorder {
 public:
  // `drawn`: numbers of the CTAs whose timeline is kept, with so many spans at most.
  Recorder(const CostModel& model, std::set<std::uint64_t> drawn, std::size_t spans)
      : model_(model), drawn_(std::move(drawn)), spans_(spans) {}
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  void begin(const Program& program, const Counters& counters);
  [[nodiscard]] CtaRecord& add_cta(std::uint64_t number, std::array<std::uint32_t, 3> index,
                                   std::uint32_t rank, std::uint32_t warps, Cycle cycle);

  // Does the instruction read a register that is being loaded? Then the warp's time is when it is
  // there.
  bool stalls(Warp& warp, std::uint32_t pc);
  // Around the execution of an instruction.
  void begins(Warp& warp, std::uint32_t pc);
  void executed(Warp& warp, std::uint32_t pc);
  // The agent that acts begins what goes on by itself; when it is complete.
  [[nodiscard]] Cycle begin(const EngineWork& work);
  // The instruction's results, which whoever reads them has to wait for.
  void fills(Warp& warp, std::span<const Operand> registers, Cycle ready);

  [[nodiscard]] const std::vector<std::unique_ptr<CtaRecord>>& ctas() const { return ctas_; }
  [[nodiscard]] const std::vector<WarpTotals>& warps() const { return warps_; }
  [[nodiscard]] const std::map<WaitKey, WaitTotals>& waits() const { return waits_; }

 private:
  struct Moved {  // bytes between registers and memories
    std::uint64_t shared = 0, distributed = 0, global = 0;
    std::uint64_t tensor_loaded = 0, tensor_stored = 0;
  };
  [[nodiscard]] Moved moved_since();
  void waited(Warp& warp, std::uint32_t pc, std::uint32_t cause, Cycle from, Cycle until);
  // When data that the instruction moves is there.
  Cycle move(Warp& warp, const Op& op, std::uint32_t pc, Cycle begin);

  CostModel model_;
  std::set<std::uint64_t> drawn_;
  std::size_t spans_;
  const Program* program_ = nullptr;
  const Counters* counters_ = nullptr;
  Moved before_;
  Cycle began_ = 0;  // the instruction that executes
  std::vector<std::unique_ptr<CtaRecord>> ctas_;
  std::vector<WarpTotals> warps_;
  std::map<WaitKey, WaitTotals> waits_;
};

// The agent that acts waits, or would, at this barrier.
inline void note_barrier(std::uint64_t barrier) {
  if (acting->record != nullptr) acting->record->noted = barrier;
}

}  // namespace gpusim
