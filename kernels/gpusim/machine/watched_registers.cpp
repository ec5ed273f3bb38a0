// SPDX-License-Identifier: MIT
#include "watched_registers.h"

#include <string>

#include "cluster.h"
#include "matrices.h"

namespace gpusim {
namespace {

class Watch {
 public:
  Watch(Machine& machine, Warp& warp, const Op& op, Mask mask)
      : machine_(machine), warp_(warp), op_(op), mask_(mask) {}

  void use(const RegisterUse& of) {
    WatchedRegister& is = warp_.watched[of.watched];
    name_ = &machine_.program.watched[of.watched];
    switch (of.use) {
      case Use::kRead:
        demand_written(is);
        demand_loaded(is, "is read");
        if (busy(is) && is.accumulates) report_wgmma(is, "is read");
        break;
      case Use::kWrite:
        demand_finished(is, "is written");
        wrote(is);
        break;
      case Use::kLoad:
        demand_finished(is, "is loaded again");
        wrote(is);
        is.load = warp_.tensor_loads.issued + 1;
        is.load_pc = warp_.agent.pc;
        break;
      case Use::kAccumulate:
        demand_loaded(is, "is used");
        demand_fenced(is);
        if (wgmma_accumulates(warp_, machine_.program.operands.data() + op_.first, op_)) {
          demand_written(is);
        }
        is.written |= mask_;
        belongs_to_wgmma(is, true);
        break;
      case Use::kMultiply:
        demand_loaded(is, "is used");
        demand_fenced(is);
        demand_written(is);
        if (busy(is) && is.accumulates) report_wgmma(is, "is multiplied");
        belongs_to_wgmma(is, false);
        break;
      case Use::kCopy:
        copied_.written &= is.written;
        [[fallthrough]];
      case Use::kCopyPart:
        if (is.load > copied_.load) {
          copied_.load = is.load;
          copied_.load_pc = is.load_pc;
        }
        if (is.accumulates && is.wgmma_group > copied_.wgmma_group) {
          copied_.wgmma_group = is.wgmma_group;
          copied_.wgmma_pc = is.wgmma_pc;
        }
        break;
      case Use::kCopyTo: {
        demand_finished(is, "is written");
        const Mask written = (is.written & ~mask_) | (copied_.written & mask_);
        is = copied_;
        is.written = written;
        break;
      }
    }
  }

 private:
  void wrote(WatchedRegister& is) const { is = {.written = is.written | mask_, .unfenced = true}; }

  void belongs_to_wgmma(WatchedRegister& is, bool accumulates) {
    is.wgmma_group = warp_.wgmmas.open();
    is.wgmma_pc = warp_.agent.pc;
    is.accumulates = accumulates;
  }

  void demand_finished(const WatchedRegister& is, const char* what) {
    demand_loaded(is, what);
    if (busy(is)) report_wgmma(is, what);
  }

  [[nodiscard]] bool busy(const WatchedRegister& is) const {
    return is.wgmma_group > warp_.wgmmas.waited();
  }

  void demand_written(const WatchedRegister& is) {
    const Mask missing = mask_ & ~is.written;
    if (missing == 0) return;
    report("uninitialised", warp_.agent.pc,
           "is read, and nothing has written it in lanes " + hex(missing));
  }

  void demand_loaded(const WatchedRegister& is, const char* what) {
    if (is.load <= warp_.tensor_loads.waited) return;
    report("unfinished", is.load_pc,
           std::string(what) + ", but no tcgen05.wait::ld has waited for " +
               machine_.program.texts[is.load_pc] + ", which fills it");
  }

  void report_wgmma(const WatchedRegister& is, const char* what) {
    report("unfinished", is.wgmma_pc,
           std::string(what) + ", but no wgmma.wait_group has waited for " +
               machine_.program.texts[is.wgmma_pc] + ", which " +
               (is.accumulates ? "accumulates into it" : "reads it"));
  }

  void demand_fenced(const WatchedRegister& is) {
    if (!is.unfenced) return;
    report("wgmma-fence", warp_.agent.pc,
           "is used, but no wgmma.fence lies between that and its last write");
  }

  // Once for the instruction that did it: what comes of it are many.
  void report(const char* kind, std::uint32_t pc, const std::string& sentence) {
    machine_.found.add(kind, pc, "", [&] {
      return "register " + *name_ + " " + sentence + "\n  " + whereabouts(warp_, mask_);
    });
  }

  Machine& machine_;
  Warp& warp_;
  const Op& op_;
  Mask mask_;
  const std::string* name_ = nullptr;
  WatchedRegister copied_{.written = kAllLanes, .unfenced = true, .accumulates = true};
};

}  // namespace

void use_registers(Machine& machine, Warp& warp, const Op& op, Mask mask) {
  Watch watch(machine, warp, op, mask);
  for (std::uint32_t i = 0; i < op.uses; ++i) watch.use(machine.program.uses[op.first_use + i]);
}

}  // namespace gpusim
