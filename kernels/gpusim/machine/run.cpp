// SPDX-License-Identifier: MIT
// The launch: clusters one after another, their warps in turns chosen by the seed, and operations
// under way completed when the seed says so, or when nothing else can go on.
#include <algorithm>
#include <bit>
#include <cstring>
#include <sstream>
#include <string_view>

#include "cluster.h"

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
  } else if (name == "%smid" || name == "%clock" || name == "%globaltimer_lo") {
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

class Runner {
 public:
  Runner(Machine& machine, Cluster& cluster) : machine_(machine), cluster_(cluster) {
    for (const auto& cta : cluster.ctas) {
      for (const auto& warp : cta->warps) warps_.push_back(warp.get());
    }
    temper_ = temper_of(machine.chance);
  }

  void run() {
    if (machine_.recorder != nullptr) {
      run_in_model_time();
    } else {
      run_by_chance();
    }
    for (const auto& cta : cluster_.ctas) cta->end();
    for (const auto& cta : cluster_.ctas) {
      if (const int columns = cta->tmem.allocated(); columns > 0) {
        throw Fault("tensor-memory", "CTA (" + describe(cta->index()) + ") ends with " +
                                         std::to_string(columns) +
                                         " columns of tensor memory not freed");
      }
    }
  }

 private:
  void run_by_chance() {
    while (!warps_.empty()) {
      const std::uint64_t before = cluster_.events();
      bool went_on = false;
      std::ranges::shuffle(warps_, machine_.chance);
      for (Warp* warp : warps_) {
        went_on |=
            turn(*warp, 1 + static_cast<std::uint32_t>(machine_.chance() % temper_.longest_turn));
        if (!cluster_.asynchronous.empty() && machine_.chance() % 256 < temper_.completions) {
          complete_one();
        }
      }
      std::erase_if(warps_, [](const Warp* warp) { return warp->live() == 0; });
      if (!went_on && cluster_.events() == before) unstick();
    }
    while (!cluster_.asynchronous.empty()) complete_one();
  }

  // Always the warp or the operation that is the earliest.
  void run_in_model_time() {
    bool together = true;
    while (!warps_.empty()) {
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
      } else {
        unstick();
      }
    }
    while (!cluster_.asynchronous.empty()) complete_first();
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
      execute(warp, *fragment);
    }
  }

  // True if the warp executed something.
  bool turn(Warp& warp, std::uint32_t most) {
    bool went_on = false;
    for (std::uint32_t i = 0; i < most; ++i) {
      Fragment* fragment = ready(warp);
      if (fragment == nullptr) break;
      went_on |= execute(warp, *fragment);
    }
    return went_on;
  }

  // The fragment that goes on: that with the lowest program counter, so that they meet again. One
  // that waits is asked again when something has happened.
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
    for (Fragment& fragment : fragments) {
      if (fragment.mask != 0 && (fragment.seen != cluster_.events() || fragment.out_of_time))
        return &fragment;
    }
    return nullptr;
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

  bool execute(Warp& warp, Fragment& fragment) {
    const Op& op = machine_.program.ops[fragment.pc];
    Mask mask = fragment.mask;
    if (op.guard != kNoGuard) {
      const Mask predicate = *warp.place<Mask>(op.guard);
      mask &= op.guard_negated ? ~predicate : predicate;
    }
    const std::uint32_t pc = fragment.pc;
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
        throw Fault(fault.kind, std::string(fault.what()) + "\n  " + whereabouts(warp, mask));
      }
    }
    switch (flow) {
      case Flow::kNext:
        ++fragment.pc;
        fragment.seen = 0;
        break;
      case Flow::kJump:
        break;
      case Flow::kWait:
      case Flow::kConverge:
        fragment.converges = flow == Flow::kConverge;
        if (fragment.converges) fragment.waits_for = "the other threads of its warp";
        fragment.seen = cluster_.events();
        return false;
    }
    if (op.work != Work::kNone) ++machine_.counters.instructions;
    if (machine_.recorder != nullptr) machine_.recorder->executed(warp, pc);
    return true;
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
      throw Fault(fault.kind, std::string(fault.what()) + "\n  " + origin(*acting));
    }
  }

  std::string origin(const Agent& agent) const {
    return "in what was begun by " + machine_.program.texts[agent.pc] + ", CTA " +
           std::to_string(agent.cta) + " of the cluster, warp " + std::to_string(agent.warp);
  }

  // Nobody can go on: an operation completes; if none is under way, try_waits give up. If that does
  // not help either, it is a deadlock.
  void unstick() {
    if (!cluster_.asynchronous.empty()) {
      complete_one();
      cluster_.happened();
      return;
    }
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
    if (someone && patience_ < kPatience) return;
    throw Fault("deadlock", table());
  }

  std::string table() const {
    std::ostringstream text;
    text << "no thread can go on:";
    for (const Warp* warp : warps_) {
      for (const Fragment& fragment : warp->fragments) {
        if (fragment.mask == 0) continue;
        text << "\n  CTA (" << describe(const_cast<Warp*>(warp)->cta().index()) << "), warp "
             << warp->id() << ", lanes " << hex(fragment.mask) << ", at "
             << machine_.program.texts[fragment.pc] << ", waits for " << fragment.waits_for.text();
      }
    }
    return text.str();
  }

  Machine& machine_;
  Cluster& cluster_;
  std::vector<Warp*> warps_;  // that still run
  Temper temper_{};
  std::uint64_t stuck_at_ = 0;
  int patience_ = 0;
};

std::string who(const Program& program, std::uint32_t pc, std::uint32_t cta, std::int32_t warp,
                bool by_itself) {
  return (by_itself ? "what was begun by warp " : "warp ") + std::to_string(warp) + " of CTA " +
         std::to_string(cta) + " of its cluster, " + program.texts[pc];
}

std::string sentence(const Program& program, const Race& race) {
  if (race.earlier != nullptr) {
    const std::string_view about = race.memory;
    const std::string where =
        about == "mbarrier" ? "at the mbarrier at " + hex(race.offset)
        : about == "barrier"
            ? "at barrier " + std::to_string(race.offset)
            : "in the shared memory of CTA " + std::to_string(race.offset) + " of its cluster";
    return where + ", what was done by " +
           who(program, race.pc, race.cta, race.warp, race.by_itself) + ", is in no order with " +
           race.earlier + " by " +
           who(program, race.earlier_pc, race.earlier_cta, race.earlier_warp,
               race.earlier_by_itself);
  }
  const bool shared = std::string_view(race.memory) == "shared";
  const std::uint32_t column = race.offset / 4 % kTmemColumns;
  return std::string(race.writes ? "a write" : "a read") + " of " + race.memory + " memory at " +
         (shared ? hex(race.offset) : "column " + std::to_string(column)) + " by " +
         who(program, race.pc, race.cta, race.warp, race.by_itself) +
         (race.unfenced ? ", is ordered after " : ", is in no order with ") +
         (race.earlier_wrote ? "a write" : "a read") + " by " +
         who(program, race.earlier_pc, race.earlier_cta, race.earlier_warp,
             race.earlier_by_itself) +
         (race.unfenced ? ", but no fence.proxy.async lies between them" : "");
}

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

std::unique_ptr<Cluster> make_cluster(Machine& machine, const Dim& index, std::uint64_t parameters,
                                      std::vector<std::vector<std::byte>>& locals,
                                      std::vector<std::unique_ptr<CtaMemory>>& memories) {
  const LaunchShape& shape = machine.shape;
  const auto threads = static_cast<std::uint32_t>(shape.block.count());
  const auto warps =
      static_cast<std::uint32_t>((threads + kLanes - 1) / kLanes * shape.cluster.count());
  auto cluster = std::make_unique<Cluster>(shape.cluster, 3 * warps);
  cluster->index = index;
  std::uint32_t slot = 0;
  const Clock start = latest;
  for (std::uint32_t rank = 0; rank < shape.cluster.count(); ++rank) {
    const Dim in_cluster = at_index(rank, shape.cluster);
    const Dim place{.x = index.x * shape.cluster.x + in_cluster.x,
                    .y = index.y * shape.cluster.y + in_cluster.y,
                    .z = index.z * shape.cluster.z + in_cluster.z};
    if (memories.size() <= rank) {
      memories.push_back(std::make_unique<CtaMemory>(machine.program.static_shared_bytes +
                                                     shape.dynamic_shared_bytes));
    } else {
      memories[rank]->shared.renew();
      memories[rank]->tmem.renew();
    }
    auto cta = std::make_unique<Cta>(*cluster, rank, place, *memories[rank]);
    CtaRecord* const record = add_record(machine, *cta, threads);
    for (std::uint32_t first = 0; first < threads; first += kLanes) {
      const std::uint32_t count = std::min<std::uint32_t>(kLanes, threads - first);
      const Mask mask = count == kLanes ? kAllLanes : (Mask{1} << count) - 1;
      auto& files = memories[rank]->registers;
      if (files.size() <= first / kLanes) {
        files.push_back(std::make_unique<RegisterFile>(machine.program));
      } else {
        files[first / kLanes]->renew();
      }
      cta->warps.push_back(std::make_unique<Warp>(machine, *cta, static_cast<int>(first / kLanes),
                                                  mask, *files[first / kLanes],
                                                  machine.program.watched.size()));
      Warp& warp = *cta->warps.back();
      warp.agent.now = {.slot = slot++, .clock = start};
      warp.agent.cta = rank;
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
        auto& local = locals.emplace_back(machine.program.local_bytes * kLanes);
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
          warp.place<std::uint64_t>(machine.program.local_base)[lane] =
              reinterpret_cast<std::uint64_t>(local.data() + lane * machine.program.local_bytes);
        }
      }
    }
    cluster->ctas.push_back(std::move(cta));
  }
  return cluster;
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
  std::vector<std::unique_ptr<CtaMemory>> memories;  // one cluster runs at a time
  while (const auto number = machine.pending.take()) {
    std::vector<std::vector<std::byte>> locals;
    const auto cluster = make_cluster(machine, at_index(*number, grid_of_clusters(shape)),
                                      parameters, locals, memories);
    Runner(machine, *cluster).run();
  }
  for (const auto& [_, race] : found.found()) {
    const std::string_view about = race.first.memory;
    const bool of_phases = about == "mbarrier" || about == "barrier";
    findings.push_back(
        {of_phases ? race.first.memory : "race", sentence(program, race.first), race.times});
  }
  for (const auto& [_, finding] : machine.found.found()) findings.push_back(finding);
  return machine.counters;
}

}  // namespace gpusim
