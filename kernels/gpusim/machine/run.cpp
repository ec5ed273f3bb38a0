// SPDX-License-Identifier: MIT
// The launch: the warps of a cluster in turns chosen by the seed, and operations under way
// completed when the seed says so, or when nothing else can go on.
#include <algorithm>
#include <bit>
#include <cstring>
#include <sstream>
#include <string_view>

#include "cluster.h"
#include "lodging.h"
#include "race_sentence.h"
#include "residents.h"

namespace gpusim {
namespace {

// How eager asynchronous operations and how long the turns of warps are; drawn from the seed.
struct Temper {
  std::uint32_t longest_turn;  // instructions
  std::uint32_t completions;   // of 256 turns, those after which an operation completes
};

Temper temper_of(std::mt19937_64& chance) {
  constexpr std::uint32_t kTurns[] = {4, 32, 256, 4096};
  constexpr std::uint32_t kCompletions[] = {0, 16, 128, 256};
  return {kTurns[chance() % 4], kCompletions[chance() % 4]};
}

std::string describe(const Dim& dim) {
  return std::to_string(dim.x) + ", " + std::to_string(dim.y) + ", " + std::to_string(dim.z);
}

class Runner : public Resident {
 public:
  // What is left in `vacant` in the end is for another cluster.
  Runner(Machine& machine, Lodging lodging, std::vector<std::unique_ptr<CtaMemory>>& vacant)
      : machine_(machine), lodging_(std::move(lodging)), vacant_(vacant) {
    for (const auto& cta : cluster_.ctas) {
      for (const auto& warp : cta->warps) warps_.push_back(warp.get());
    }
    temper_ = temper_of(machine.chance);
  }

  Outcome go(bool patient) override {
    patience_ = 0;
    if (!patient) look_again();
    const bool ended =
        machine_.recorder != nullptr ? run_in_model_time(patient) : run_by_chance(patient);
    if (!ended) return Outcome::kWaits;
    for (const auto& cta : cluster_.ctas) cta->end(machine_.found);
    for (const auto& cta : cluster_.ctas) {
      if (const int columns = cta->tmem.allocated(); columns > 0) {
        throw Fault("tensor-memory", "CTA (" + describe(cta->index()) + ") ends with " +
                                         std::to_string(columns) +
                                         " columns of tensor memory not freed");
      }
    }
    acting = nullptr;
    for (auto& memory : lodging_.memories) vacant_.push_back(std::move(memory));
    return Outcome::kEnded;
  }

  [[nodiscard]] bool has_news() const override {
    for (const Warp* warp : warps_) {
      for (const Fragment& fragment : warp->fragments) {
        if (fragment.mask == 0 || !fragment.polls.wait()) continue;
        for (const Polls::Read& read : fragment.polls.reads()) {
          if (!read.global) continue;
          std::uint64_t now = 0;
          // NOLINTNEXTLINE(performance-no-int-to-ptr)
          const auto* const there = reinterpret_cast<const std::byte*>(read.address);
          std::memcpy(&now, there, read.bytes);
          if (!read.one_place || now != read.value) return true;
        }
      }
    }
    return false;
  }

  [[nodiscard]] std::vector<std::string> table() const override {
    std::vector<std::string> lines;
    for (const Warp* warp : warps_) {
      for (const Fragment& fragment : warp->fragments) {
        if (fragment.mask == 0) continue;
        lines.push_back("\n  CTA (" + describe(const_cast<Warp*>(warp)->cta().index()) +
                        "), warp " + std::to_string(warp->id()) + ", lanes " + hex(fragment.mask) +
                        ", at " + machine_.program.texts[stands_at(fragment)] + ", " +
                        state(fragment));
      }
    }
    return lines;
  }

 private:
  // False: it waits for global memory.
  bool run_by_chance(bool patient) {
    while (!warps_.empty()) {
      const std::uint64_t before = cluster_.events();
      bool went_on = false;
      std::ranges::shuffle(warps_, machine_.chance);
      for (Warp* warp : warps_) {
        const auto most = 1 + static_cast<std::uint32_t>(machine_.chance() % temper_.longest_turn);
        went_on |= turn(*warp, patient ? std::max(most, kPatientTurn) : most);
        if (!cluster_.asynchronous.empty() && machine_.chance() % 256 < temper_.completions) {
          complete_one();
        }
      }
      std::erase_if(warps_, [](const Warp* warp) { return warp->live() == 0; });
      if (!went_on && cluster_.events() == before && !unstick(patient)) return false;
    }
    while (!cluster_.asynchronous.empty()) complete_one();
    return true;
  }

  // Always the warp or the operation that is the earliest.
  bool run_in_model_time(bool patient) {
    bool together = true;
    while (!warps_.empty()) {
      if (cluster_.asynchronous.empty() && only_polls() && !unstick(patient)) return false;
      Warp* next = nullptr;
      Cycle limit = cluster_.asynchronous.first_completion();
      for (Warp* warp : warps_) {
        if (ready_in_model_time(*warp, together) == nullptr) continue;
        if (next == nullptr || cycle(*warp) < cycle(*next)) std::swap(next, warp);
        if (warp != nullptr) limit = std::min(limit, cycle(*warp));
      }
      if (next != nullptr && cycle(*next) <= limit) {
        turn_until(*next, limit, together);
        if (next->live() == 0) std::erase(warps_, next);
        together = true;
      } else if (!cluster_.asynchronous.empty()) {
        complete_first();
      } else if (together) {
        together = false;
      } else if (!unstick(patient)) {
        return false;
      }
    }
    while (!cluster_.asynchronous.empty()) complete_first();
    return true;
  }

  // Is every thread that can go on in a loop that reads the same again and again?
  bool only_polls() {
    bool polls = false;
    for (Warp* warp : warps_) {
      const Fragment* const fragment = ready(*warp);
      if (fragment == nullptr) continue;
      if (!fragment->polls.wait()) return false;
      polls = true;
    }
    return polls;
  }

  // `together`: threads that took a shorter way wait for the others of their warp where the ways
  // meet, as compiled code has it; not for those that in turn wait for them.
  Fragment* ready_in_model_time(Warp& warp, bool together) {
    Fragment* const found = ready(warp);
    if (found == nullptr || !together) return found;
    for (Fragment& fragment : warp.fragments) {
      if (&fragment == found) return found;
      if (fragment.mask != 0 && !fragment.converges) return nullptr;
    }
    return found;
  }

  static Cycle cycle(const Warp& warp) { return warp.agent.knows.reached.cycle; }

  // Until it is later than the limit, or something has happened for which others may wait.
  void turn_until(Warp& warp, Cycle limit, bool together) {
    const std::uint64_t events = cluster_.events();
    while (cycle(warp) <= limit && cluster_.events() == events) {
      Fragment* const fragment = ready_in_model_time(warp, together);
      if (fragment == nullptr || machine_.recorder->stalls(warp, fragment->pc)) return;
      if (execute(warp, *fragment) == Done::kRead) return;
    }
  }

  static constexpr std::uint32_t kPatientTurn = 256;

  // What was read in vain may have changed.
  void look_again() {
    for (Warp* warp : warps_) {
      for (Fragment& fragment : warp->fragments) fragment.polls.progresses();
    }
  }

  // Of a loop that polls, its last read.
  static std::uint32_t stands_at(const Fragment& fragment) {
    return fragment.polls.wait() ? fragment.polls.last().pc : fragment.pc;
  }

  [[nodiscard]] std::string state(const Fragment& fragment) const {
    if (!fragment.polls.wait()) return "waits for " + fragment.waits_for.text();
    std::string text = "reads again and again";
    for (const Polls::Read& read : fragment.polls.reads()) {
      if (read.bytes == 0) continue;
      text += (text.ends_with("again") ? " " : " and ") + std::to_string(read.bytes) +
              " bytes of " +
              (read.global ? machine_.memory.describe(read.address)
                           : "shared memory at " + hex(read.address)) +
              ", which stay " + hex(read.value);
    }
    return text;
  }

  // True if the warp executed something other than reads in vain.
  bool turn(Warp& warp, std::uint32_t most) {
    bool went_on = false;
    for (std::uint32_t i = 0; i < most; ++i) {
      Fragment* fragment = ready(warp);
      if (fragment == nullptr) break;
      const Done done = execute(warp, *fragment);
      went_on |= done == Done::kWork;
      if (done == Done::kRead) break;
    }
    return went_on;
  }

  // The fragment that goes on: that with the lowest program counter, so that they meet again. One
  // that waits is asked again when something has happened; those that poll let others go first.
  Fragment* ready(Warp& warp) {
    auto& fragments = warp.fragments;
    if (fragments.size() > 1) {
      std::erase_if(fragments, [](const Fragment& fragment) { return fragment.mask == 0; });
      std::ranges::sort(fragments, {}, &Fragment::pc);
      for (std::size_t i = 1; i < fragments.size();) {
        if (fragments[i].pc == fragments[i - 1].pc && !fragments[i].arrived &&
            !fragments[i - 1].arrived) {
          fragments[i - 1].mask |= fragments[i].mask;
          fragments[i - 1].seen = 0;
          fragments.erase(fragments.begin() + static_cast<std::ptrdiff_t>(i));
        } else {
          ++i;
        }
      }
    }
    if (Fragment* other = overdue(warp)) return other;
    Fragment* polls = nullptr;
    for (Fragment& fragment : fragments) {
      if (fragment.mask == 0 || (fragment.seen == cluster_.events() && !fragment.out_of_time)) {
        continue;
      }
      if (!fragment.polls.wait()) return &fragment;
      if (polls == nullptr || fragment.polls.times() < polls->polls.times()) polls = &fragment;
    }
    return polls;
  }

  // Threads that wait in a loop for others of their warp must not keep those from going on (PTX ISA
  // 3.1 "independent thread scheduling"). So while fragments have not met for long, each has its
  // turn for a while in every kApart steps.
  Fragment* overdue(Warp& warp) const {
    auto& fragments = warp.fragments;
    if (fragments.size() != warp.fragments_before) warp.apart = 0;
    warp.fragments_before = fragments.size();
    if (fragments.size() < 2) return nullptr;
    constexpr std::uint64_t kApart = 4096;
    constexpr std::uint64_t kTurn = 256;
    const std::uint64_t steps = ++warp.apart;
    if (steps < kApart || steps % kApart >= kTurn) return nullptr;
    Fragment& chosen = fragments[steps / kApart % fragments.size()];
    const bool ready = chosen.seen != cluster_.events() || chosen.out_of_time;
    return chosen.mask != 0 && ready ? &chosen : nullptr;
  }

  enum class Done : std::uint8_t {
    kWork,
    kIdle,  // nothing, or an instruction of a loop that polls
    kRead,  // the read of such a loop, in vain
  };

  Done execute(Warp& warp, Fragment& fragment) {
    const Op& op = machine_.program.ops[fragment.pc];
    Mask mask = fragment.mask;
    if (op.guard != kNoGuard) {
      const Mask predicate = *warp.place<Mask>(op.guard);
      mask &= op.guard_negated ? ~predicate : predicate;
    }
    const std::uint32_t pc = fragment.pc;
    const std::uint64_t events = cluster_.events();
    const std::uint32_t times = fragment.polls.times();
    const bool idles = fragment.polls.idles();
    Flow flow = Flow::kNext;
    if (machine_.recorder != nullptr) machine_.recorder->begins(warp, pc);
    if (mask != 0) {
      Step step{.warp = warp,
                .fragment = fragment,
                .op = op,
                .operands = machine_.program.operands.data() + op.first,
                .mask = mask};
      warp.registers().executes(pc);
      warp.agent.pc = pc;
      acting = &warp.agent;
      if (op.uses != 0) use_registers(machine_, warp, op, mask);
      try {
        flow = op.run(step);
      } catch (const Fault& fault) {
        throw placed(fault, whereabouts(warp, mask));
      }
    }
    switch (flow) {
      case Flow::kNext:
        ++fragment.pc;
        fragment.seen = 0;
        if (cluster_.events() != events) fragment.polls.progresses();
        if (op.meets && mask != 0) warp.lanes.meet();
        break;
      case Flow::kJump:
        break;
      case Flow::kWait:
      case Flow::kConverge:
        fragment.converges = flow == Flow::kConverge;
        if (fragment.converges) fragment.waits_for = "the other threads of its warp";
        fragment.seen = cluster_.events();
        return Done::kIdle;
    }
    if (op.work != Work::kNone) ++machine_.counters.instructions;
    if (machine_.recorder != nullptr) machine_.recorder->executed(warp, pc);
    if (!idles || (flow == Flow::kNext && !fragment.polls.wait())) return Done::kWork;
    return flow == Flow::kNext && fragment.polls.times() > times ? Done::kRead : Done::kIdle;
  }

  void complete_one() {
    complete([this] { cluster_.asynchronous.complete_one(machine_.chance); });
  }

  void complete_first() {
    complete([this] { cluster_.asynchronous.complete_first(); });
    cluster_.happened();
  }

  template <class Act>
  void complete(Act act) {
    try {
      act();
    } catch (const Fault& fault) {
      throw placed(fault, origin(*acting));
    }
  }

  [[nodiscard]] Fault placed(const Fault& fault, const std::string& where) const {
    Fault placed(fault.kind, std::string(fault.what()) + "\n  " + where);
    placed.history = texts_of(machine_.program, acting->recent);
    return placed;
  }

  [[nodiscard]] std::string origin(const Agent& agent) const {
    return "in what was begun by " + machine_.program.texts[agent.pc] + ", CTA " +
           std::to_string(agent.cta) + " of the cluster, warp " + std::to_string(agent.warp);
  }

  // Nobody can go on: an operation completes; if none is under way, try_waits give up. If that does
  // not help either, it is a deadlock, or false if some of its warps wait for global memory.
  bool unstick(bool patient) {
    if (!cluster_.asynchronous.empty()) {
      complete_one();
      cluster_.happened();
      return true;
    }
    const bool polls = std::ranges::any_of(warps_, [](const Warp* warp) {
      return std::ranges::any_of(warp->fragments, [](const Fragment& fragment) {
        return fragment.mask != 0 && fragment.polls.wait();
      });
    });
    if (polls && !patient) return false;
    bool someone = false;
    for (Warp* warp : warps_) {
      for (Fragment& fragment : warp->fragments) {
        if (!fragment.may_time_out) continue;
        fragment.out_of_time = someone = true;
      }
    }
    constexpr int kPatience = 64;  // rounds of giving up in which nothing happens
    patience_ = cluster_.events() == stuck_at_ ? patience_ + 1 : 0;
    stuck_at_ = cluster_.events();
    if ((someone || polls) && patience_ < kPatience) return true;
    if (polls) return false;
    std::string text = "no thread can go on:";
    for (const std::string& line : table()) text += line;
    throw Fault("deadlock", text);
  }

  Machine& machine_;
  Lodging lodging_;
  Cluster& cluster_ = *lodging_.cluster;
  std::vector<std::unique_ptr<CtaMemory>>& vacant_;
  std::vector<Warp*> warps_;  // that still run
  Temper temper_{};
  std::uint64_t stuck_at_ = 0;
  int patience_ = 0;
};

// Whose launch this thread executes, until it has.
struct Observed {
  Observed(Races& found, Edges* of_it) {
    races = &found;
    edges = of_it;
  }
  ~Observed() {
    races = nullptr;
    edges = nullptr;
    acting = nullptr;
  }
  Observed(const Observed&) = delete;
  Observed& operator=(const Observed&) = delete;
};

std::vector<Finding> all_of(const Machine& machine, const Races& races_found) {
  std::vector<Finding> all;
  for (const auto& [_, race] : races_found.found()) {
    const std::string_view about = race.first.memory;
    const bool of_phases = about == "mbarrier" || about == "barrier";
    all.push_back({of_phases ? race.first.memory : "race", sentence(machine, race.first),
                   race.times, texts_of(machine.program, race.recent)});
  }
  const std::vector<Finding> others = machine.found.all(machine.program);
  all.insert(all.end(), others.begin(), others.end());
  return all;
}

}  // namespace

std::string whereabouts(Warp& warp, Mask mask) {
  return "at " + warp.machine().program.texts[warp.agent.pc] + ", CTA (" +
         describe(warp.cta().index()) + "), warp " + std::to_string(warp.id()) + ", lanes " +
         hex(mask);
}

Counters run(const Program& program, const LaunchShape& shape, GlobalMemory& memory,
             std::uint64_t parameters, std::uint64_t seed, std::vector<Finding>& findings,
             Recorder* recorder, Edges* observed_edges) {
  Races found;
  latest = 0;
  const Observed observed(found, observed_edges);
  Machine machine{.program = program,
                  .shape = shape,
                  .memory = memory,
                  .chance = std::mt19937_64(seed),
                  .counters = {},
                  .found = {},
                  .recorder = recorder,
                  .pending = PendingClusters(grid_of_clusters(shape).count())};
  if (recorder != nullptr) recorder->begin(program, machine.counters);
  const Dim clusters = grid_of_clusters(shape);
  const std::uint64_t most = std::max<std::uint64_t>(
      shape.resident == 0 ? clusters.count() : shape.resident / shape.cluster.count(), 1);
  std::vector<std::unique_ptr<CtaMemory>> vacant;
  const auto begin = [&](std::uint64_t number, std::uint32_t slot) {
    return std::make_unique<Runner>(
        machine,
        make_cluster(machine, at_index(number, clusters), static_cast<std::uint32_t>(number), slot,
                     parameters, vacant),
        vacant);
  };
  try {
    run_clusters(machine.pending, most, begin, memory.changes(), machine.chance);
  } catch (Fault& fault) {
    fault.before = all_of(machine, found);
    throw;
  }
  findings = all_of(machine, found);
  return machine.counters;
}

}  // namespace gpusim
