// SPDX-License-Identifier: MIT
// Calls of device functions and returns from them (PTX ISA 9.7.12.5, 9.7.12.6). Every thread has a
// register with the address of its function's frame in local memory; a call moves it on, a return
// moves it back. Threads that return to different places part there.
#include <bit>
#include <cstring>
#include <string>

#include "cluster.h"

namespace gpusim {
namespace {

constexpr int kFrame = 0;  // operand of call: the register with the frame's address

std::byte* local(Step& step, int operand, int lane) {
  const std::uint64_t at =
      step.reg<std::uint64_t>(operand)[lane] + static_cast<std::uint64_t>(step.offset(operand));
  return reinterpret_cast<std::byte*>(at);  // NOLINT(performance-no-int-to-ptr)
}

// Operands: the frame, the local memory. Modifiers: bytes needed from the frame's begin on.
Flow reserve(Step& step) {
  const Program& program = step.warp.machine().program;
  step.each_lane([&](int lane) {
    const std::uint64_t used = step.reg<std::uint64_t>(0)[lane] - step.reg<std::uint64_t>(1)[lane];
    if (used + static_cast<std::uint64_t>(step.op.modifiers) > program.local_bytes) {
      throw Fault("stack",
                  "a call at depth " +
                      std::to_string(step.warp.returns[static_cast<std::size_t>(lane)].size()) +
                      " needs more than the " + std::to_string(program.local_bytes) +
                      " bytes of local memory that a thread has for frames; recurse less");
    }
  });
  return Flow::kNext;
}

// Operands: to, from. Modifiers: bytes.
Flow copy(Step& step) {
  step.each_lane([&](int lane) {
    std::memmove(local(step, 0, lane), local(step, 1, lane),
                 static_cast<std::size_t>(step.op.modifiers));
  });
  return Flow::kNext;
}

// Operands: registers; the offset of one is the bytes of a lane, or 0 for a predicate.
Flow save(Step& step) {
  step.each_lane([&](int lane) {
    auto& saved = step.warp.saved[static_cast<std::size_t>(lane)];
    for (int i = 0; i < static_cast<int>(step.op.count); ++i) {
      const auto width = static_cast<std::size_t>(step.offset(i));
      if (width == 0) {
        saved.push_back(static_cast<std::byte>(step.predicate(i) >> lane & 1));
      } else {
        const std::byte* const at =
            step.reg<std::byte>(i) + (static_cast<std::size_t>(lane) * width);
        saved.insert(saved.end(), at, at + width);
      }
    }
  });
  return Flow::kNext;
}

Flow restore(Step& step) {
  step.each_lane([&](int lane) {
    auto& saved = step.warp.saved[static_cast<std::size_t>(lane)];
    for (int i = static_cast<int>(step.op.count) - 1; i >= 0; --i) {
      const auto width = static_cast<std::size_t>(step.offset(i));
      if (width == 0) {
        Mask& at = step.predicate(i);
        at = (at & ~(Mask{1} << lane)) | static_cast<Mask>(saved.back()) << lane;
        saved.pop_back();
      } else {
        std::memcpy(step.reg<std::byte>(i) + (static_cast<std::size_t>(lane) * width),
                    saved.data() + saved.size() - width, width);
        saved.resize(saved.size() - width);
      }
    }
  });
  return Flow::kNext;
}

// Threads go to where `to` says of each lane; those of the fragment that do not act go on.
template <class To>
Flow part(Step& step, To to) {
  const std::uint32_t first = to(step.lane());
  Mask together = 0;
  step.each_lane([&](int lane) { together |= to(lane) == first ? Mask{1} << lane : 0; });
  if (together == step.fragment.mask) {
    step.fragment.pc = first;
    return Flow::kJump;
  }
  const Mask acting_threads = step.mask;
  step.fragment.mask &= ~acting_threads;
  ++step.fragment.pc;
  // Invalidates the fragment.
  for (Mask rest = acting_threads; rest != 0;) {
    const std::uint32_t pc = to(std::countr_zero(rest));
    Mask there = 0;
    for (Mask other = rest; other != 0; other &= other - 1) {
      const int lane = std::countr_zero(other);
      if (to(lane) == pc) there |= Mask{1} << lane;
    }
    step.warp.fragments.push_back({.pc = pc, .mask = there});
    rest &= ~there;
  }
  return Flow::kJump;
}

void enter(Step& step) {
  const auto bytes = static_cast<std::uint32_t>(step.op.modifiers);
  const std::uint32_t next = step.fragment.pc + 1;
  step.each_lane([&](int lane) {
    step.warp.returns[static_cast<std::size_t>(lane)].push_back({.pc = next, .frame_bytes = bytes});
    step.reg<std::uint64_t>(kFrame)[lane] += bytes;
  });
  step.warp.frame_at = step.operands[kFrame].at;
}

// Operand: the frame. Modifiers: bytes of the caller's.
Flow call(Step& step) {
  enter(step);
  const std::uint32_t target = step.op.target;
  return part(step, [target](int) { return target; });
}

// Operands: the frame, the function's address.
Flow call_indirect(Step& step) {
  const auto& functions = step.warp.machine().program.functions;
  const std::uint64_t* const addresses = step.reg<std::uint64_t>(1);
  std::array<std::uint32_t, kLanes> targets{};
  step.each_lane([&](int lane) {
    const auto found = functions.find(addresses[lane]);
    if (found == functions.end()) {
      throw Fault("call", "lane " + std::to_string(lane) + " calls " + hex(addresses[lane]) +
                              ", which is the address of no function");
    }
    targets[static_cast<std::size_t>(lane)] = found->second;
  });
  enter(step);
  return part(step, [&](int lane) { return targets[static_cast<std::size_t>(lane)]; });
}

Flow ret(Step& step) {
  std::array<std::uint32_t, kLanes> targets{};
  step.each_lane([&](int lane) {
    auto& returns = step.warp.returns[static_cast<std::size_t>(lane)];
    targets[static_cast<std::size_t>(lane)] = returns.back().pc;
    step.warp.place<std::uint64_t>(step.warp.frame_at)[lane] -= returns.back().frame_bytes;
    returns.pop_back();
  });
  return part(step, [&](int lane) { return targets[static_cast<std::size_t>(lane)]; });
}

}  // namespace

void register_calls(Registry& registry) {
  registry["call.reserve"] = reserve;
  registry["call.copy"] = copy;
  registry["call.save"] = save;
  registry["call.restore"] = restore;
  registry["call"] = call;
  registry["call.indirect"] = call_indirect;
  registry["return"] = ret;
}

}  // namespace gpusim
