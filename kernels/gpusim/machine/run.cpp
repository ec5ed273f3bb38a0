// SPDX-License-Identifier: MIT
// The launch: the warps of a cluster in turns chosen by the seed, and operations under way
// completed when the seed says so, or when nothing else can go on.
#include <algorithm>
#include <bit>
#include <cstring>
#include <sstream>
#include <string_view>

#include "cluster.h"
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

template <class T>
void fill(Warp& warp, std::int32_t at, T value) {
  std::fill_n(warp.place<T>(at), kLanes, value);
}

std::uint32_t component(const Dim& dim, char axis) {
  return axis == 'x' ? dim.x : axis == 'y' ? dim.y : dim.z;
}

// %tid.x, %ctaid.y, ... as the warp sees them (PTX ISA 10 "special registers").
void set_special(Warp& warp, const Program::Special& special, const LaunchShape& shape,
                 std::uint64_t parameters) {
  Cta& cta = warp.cta();
  const std::string& name = special.name;
  const char axis = name.back();
  const Dim& block = shape.block;
  const auto set = [&](std::uint32_t value) { fill(warp, special.at, value); };
  if (name.starts_with("%tid.")) {
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t thread = static_cast<std::uint32_t>(warp.id()) * kLanes + lane;
      warp.place<std::uint32_t>(special.at)[lane] = component(at_index(thread, block), axis);
    }
  } else if (name == "%laneid") {
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      warp.place<std::uint32_t>(special.at)[lane] = lane;
    }
  } else if (name.starts_with("%ntid.")) {
    set(component(block, axis));
  } else if (name.starts_with("%ctaid.")) {
    set(component(cta.index(), axis));
  } else if (name.starts_with("%nctaid.")) {
    set(component(shape.grid, axis));
  } else if (name == "%warpid") {
    set(static_cast<std::uint32_t>(warp.id()));
  } else if (name == "%cluster_ctarank") {
    set(cta.rank());
  } else if (name == "%cluster_nctarank") {
    set(static_cast<std::uint32_t>(shape.cluster.count()));
  } else if (name.starts_with("%cluster_ctaid.")) {
    set(component(at_index(cta.rank(), shape.cluster), axis));
  } else if (name.starts_with("%cluster_nctaid.")) {
    set(component(shape.cluster, axis));
  } else if (name.starts_with("%clusterid.")) {
    set(component(cta.cluster().index, axis));
  } else if (name.starts_with("%nclusterid.")) {
    set(component(shape.grid, axis) / component(shape.cluster, axis));
  } else if (name == "%dynamic_smem_size") {
    set(static_cast<std::uint32_t>(shape.dynamic_shared_bytes));
  } else if (name == "%total_smem_size") {
    set(static_cast<std::uint32_t>(cta.shared.size() - kReservedShared));
  } else if (name == "%shared") {  // where the kernel's shared variables begin
    set((cta.rank() << kRankShift) + kReservedShared);
  } else if (name == "%parameters") {
    fill(warp, special.at, parameters);
  } else if (name.starts_with("%lanemask_")) {
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t own = 1U << lane;
      const std::uint32_t less = own - 1;
      const std::string which = name.substr(10);
      warp.place<std::uint32_t>(special.at)[lane] = which == "eq"   ? own
                                                    : which == "lt" ? less
                                                    : which == "le" ? less | own
                                                    : which == "gt" ? ~(less | own)
                                                                    : ~less;
    }
  } else if (name == "%smid") {
    set(cta.cluster().slot * static_cast<std::uint32_t>(shape.cluster.count()) + cta.rank());
  } else if (name == "%clock" || name == "%globaltimer_lo") {
    set(0);
  } else if (name == "%clock64" || name == "%globaltimer") {
    fill(warp, special.at, std::uint64_t{0});
  } else {
    throw Fault("special-register", name + " is not known here");
  }
}

std::string describe(const Dim& dim) {
  return std::to_string(dim.x) + ", " + std::to_string(dim.y) + ", " + std::to_string(dim.z);
}

// A cluster, with what it needs.
struct Lodging {
  std::vector<std::unique_ptr<CtaMemory>> memories;
  std::vector<std::vector<std::byte>> locals;
  std::unique_ptr<Cluster> cluster;
};

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
          const auto* const there = reinterpret_cast<const std::byte*>(
              read.address);  // NOLINT(performance-no-int-to-ptr)
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

// Null if the launch is not recorded.
CtaRecord* add_record(Machine& machine, const Cta& cta, std::uint32_t threads) {
  if (machine.recorder == nullptr) return nullptr;
  const Dim& at = cta.index();
  const Dim& grid = machine.shape.grid;
  const std::uint64_t number = at.x + grid.x * (at.y + std::uint64_t{grid.y} * at.z);
  return &machine.recorder->add_cta(number, {at.x, at.y, at.z}, cta.rank(),
                                    (threads + kLanes - 1) / kLanes, 0);
}

Lodging make_cluster(Machine& machine, const Dim& index, std::uint32_t number,
                     std::uint32_t slot_of_device, std::uint64_t parameters,
                     std::vector<std::unique_ptr<CtaMemory>>& vacant) {
  const LaunchShape& shape = machine.shape;
  const auto threads = static_cast<std::uint32_t>(shape.block.count());
  const auto warps =
      static_cast<std::uint32_t>((threads + kLanes - 1) / kLanes * shape.cluster.count());
  Lodging lodging;
  lodging.cluster = std::make_unique<Cluster>(shape.cluster, 3 * warps);
  Cluster* const cluster = lodging.cluster.get();
  cluster->index = index;
  cluster->slot = slot_of_device;
  std::uint32_t slot = 0;
  const Clock start = latest;
  for (std::uint32_t rank = 0; rank < shape.cluster.count(); ++rank) {
    const Dim in_cluster = at_index(rank, shape.cluster);
    const Dim place{.x = index.x * shape.cluster.x + in_cluster.x,
                    .y = index.y * shape.cluster.y + in_cluster.y,
                    .z = index.z * shape.cluster.z + in_cluster.z};
    if (vacant.empty()) {
      lodging.memories.push_back(std::make_unique<CtaMemory>(machine.program.static_shared_bytes +
                                                             shape.dynamic_shared_bytes));
    } else {
      lodging.memories.push_back(std::move(vacant.back()));
      vacant.pop_back();
      lodging.memories.back()->shared.renew();
      lodging.memories.back()->tmem.renew();
    }
    auto cta = std::make_unique<Cta>(*cluster, rank, place, *lodging.memories.back());
    CtaRecord* const record = add_record(machine, *cta, threads);
    for (std::uint32_t first = 0; first < threads; first += kLanes) {
      const std::uint32_t count = std::min<std::uint32_t>(kLanes, threads - first);
      const Mask mask = count == kLanes ? kAllLanes : (Mask{1} << count) - 1;
      auto& files = lodging.memories.back()->registers;
      if (files.size() <= first / kLanes) {
        files.push_back(std::make_unique<RegisterFile>(machine.program));
      } else {
        files[first / kLanes]->renew();
      }
      cta->warps.push_back(
          std::make_unique<Warp>(machine, *cta, cta->missed, static_cast<int>(first / kLanes), mask,
                                 *files[first / kLanes], machine.program.watched.size()));
      Warp& warp = *cta->warps.back();
      warp.agent.now = {.slot = slot++, .clock = start};
      warp.agent.cta = rank;
      warp.agent.cluster = number;
      warp.agent.warp = warp.id();
      if (record != nullptr) {
        warp.agent.record = record;
        warp.agent.knows.reached.cycle = record->begin;
      }
      warp.agent.tick();
      for (Agent* agent : {&warp.load_agent, &warp.store_agent}) {
        *agent = warp.agent;
        const std::uint32_t turn = agent == &warp.load_agent ? 1 : 2;
        agent->now = {.slot = (turn * warps) + warp.agent.now.slot, .clock = start};
        agent->by_itself = true;
        agent->proxy = Proxy::kAsync;
      }
      for (const Program::Special& special : machine.program.specials) {
        set_special(warp, special, shape, parameters);
      }
      if (machine.program.local_bytes > 0) {
        auto& local = lodging.locals.emplace_back(machine.program.local_bytes * kLanes);
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
          warp.place<std::uint64_t>(machine.program.local_base)[lane] =
              reinterpret_cast<std::uint64_t>(local.data() + lane * machine.program.local_bytes);
        }
      }
    }
    cluster->ctas.push_back(std::move(cta));
  }
  return lodging;
}

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

const Registry& handlers() {
  static const Registry kRegistry = [] {
    Registry registry;
    register_arithmetic(registry);
    register_conversions(registry);
    register_moves(registry);
    register_accesses(registry);
    register_threads(registry);
    register_barriers(registry);
    register_bulk_copies(registry);
    register_matrices(registry);
    register_matrix_accesses(registry);
    register_calls(registry);
    register_cluster_launches(registry);
    register_async_stores(registry);
    register_tensor_map_edits(registry);
    register_register_pool(registry);
    return registry;
  }();
  return kRegistry;
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
