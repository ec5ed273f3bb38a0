// SPDX-License-Identifier: MIT
// A kernel as the machine executes it: instructions whose operands are places in a warp's register
// file. Constants and special registers are places there too, so every operand is read alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace gpusim {

inline constexpr int kLanes = 32;
using Mask = std::uint32_t;  // a bit for each lane
inline constexpr Mask kAllLanes = ~Mask{0};

struct Step;

// What becomes of the threads that executed an instruction.
enum class Flow : std::uint8_t {
  kNext,      // on to the next one
  kWait,      // the instruction is executed again when something has happened
  kConverge,  // the same, when the other threads that it names have come here
  kJump,      // the instruction has moved the threads itself
};

using Handler = Flow (*)(Step&);

struct Operand {
  std::int32_t at = -1;     // byte offset in the register file; -1: the sink `_`
  std::int64_t offset = 0;  // added where the operand is an address
};

inline constexpr std::int32_t kNoGuard = -1;

// What an instruction occupies, in the cost model (ts_gpusim/cost_model.py has the same order).
enum class Work : std::uint8_t {
  kNone,  // a step that the decoder adds: the first one of an instruction stands for it
  kControl,
  kInteger,
  kFloat,
  kDouble,
  kSpecial,  // ex2, rcp, ...
  kConversion,
  kShuffle,
  kLoad,
  kStore,
  kAtomic,
  kTensorMemory,
  kCopy,
  kMma,
  kSynchronise,
};
inline constexpr std::size_t kWorks = 15;

// How an instruction uses a register that is watched: decode/register_flow.py says the same.
enum class Use : std::uint8_t {
  kRead,
  kWrite,
  kLoad,        // a tcgen05.ld fills it
  kAccumulate,  // D of a wgmma
  kMultiply,    // A of a wgmma
  kCopy,        // a mov reads it
  kCopyPart,    // a mov makes it part of a wider register
  kCopyTo,      // a mov writes it
};

struct RegisterUse {
  std::uint32_t watched;  // number of the register
  Use use;
};

struct Op {
  Handler run = nullptr;
  std::int32_t guard = kNoGuard;  // place of a predicate
  bool guard_negated = false;
  std::uint32_t first = 0;  // in Program::operands
  std::uint32_t count = 0;
  std::int64_t modifiers = 0;  // what they mean is the handler's affair
  std::uint32_t target = 0;    // of a branch
  bool meets = false;          // the threads of a warp wait for each other in it
  Work work = Work::kNone;
  std::uint32_t first_use = 0;  // in Program::uses
  std::uint32_t uses = 0;
};

struct Program {
  static constexpr std::size_t kStretch = 64;

  std::vector<Op> ops;
  std::vector<Operand> operands;
  std::vector<std::string> texts;    // of ops, for messages
  std::vector<RegisterUse> uses;     // of watched registers
  std::vector<std::string> watched;  // their names
  std::vector<std::byte> registers;  // as they are when a warp starts: constants are in it
  struct Places {
    std::size_t begin, end;
  };
  // What each kStretch of ops may change in the registers.
  std::vector<std::vector<Places>> changed;
  std::uint32_t most_registers = 0;  // of a thread at the start; 0: not known
  std::size_t static_shared_bytes = 0;
  std::map<std::uint64_t, std::uint32_t> functions;  // first ops, by what is called their address
  std::size_t local_bytes = 0;                       // of a thread
  std::int32_t local_base = -1;                      // place of the address of its local memory
  struct Special {
    std::int32_t at;
    std::string name;  // such as %tid.x
  };
  std::vector<Special> specials;
};

// Fills in `changed` of a program that is complete.
void find_changed(Program& program);

// Something that a kernel must not do, and the launch goes on.
struct Finding {
  std::string kind;  // such as race
  std::string sentence;
  std::uint64_t times;
  std::vector<std::string> history;  // where its warp had synchronised, the newest first
};

// Something that a kernel must not do. The launch ends.
struct Fault : std::runtime_error {
  Fault(std::string kind_of_fault, const std::string& sentence)
      : std::runtime_error(sentence), kind(std::move(kind_of_fault)) {}
  std::string kind;                  // such as out-of-bounds
  std::vector<std::string> history;  // as of a finding
  std::vector<Finding> before;       // of the launch until then
};

}  // namespace gpusim
