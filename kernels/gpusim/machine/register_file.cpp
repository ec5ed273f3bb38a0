// SPDX-License-Identifier: MIT
#include "register_file.h"

#include <algorithm>
#include <cstring>

namespace gpusim {
namespace {

constexpr std::size_t kAlignment = 64;

std::byte* aligned(std::byte* at) {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  return at + (kAlignment - address % kAlignment) % kAlignment;
}

}  // namespace

// A place extends to the next one that an operand has.
void find_changed(Program& program) {
  std::vector<std::size_t> places{program.registers.size()};
  for (const Operand& operand : program.operands) {
    if (operand.at >= 0) places.push_back(static_cast<std::size_t>(operand.at));
  }
  std::ranges::sort(places);
  program.changed.assign((program.ops.size() / Program::kStretch) + 1, {});
  for (std::size_t stretch = 0; stretch < program.changed.size(); ++stretch) {
    std::vector<Program::Places> found;
    const std::size_t end = std::min((stretch + 1) * Program::kStretch, program.ops.size());
    for (std::size_t pc = stretch * Program::kStretch; pc < end; ++pc) {
      const Op& op = program.ops[pc];
      for (std::size_t i = op.first; i < std::size_t{op.first} + op.count; ++i) {
        if (program.operands[i].at < 0) continue;
        const auto begin = static_cast<std::size_t>(program.operands[i].at);
        found.push_back({.begin = begin, .end = *std::ranges::upper_bound(places, begin)});
      }
    }
    std::ranges::sort(found, {}, &Program::Places::begin);
    std::vector<Program::Places>& merged = program.changed[stretch];
    for (const Program::Places& next : found) {
      if (!merged.empty() && next.begin <= merged.back().end) {
        merged.back().end = std::max(merged.back().end, next.end);
      } else {
        merged.push_back(next);
      }
    }
  }
}

RegisterFile::RegisterFile(const Program& program)
    : program_(&program),
      bytes_(program.registers.size() + kAlignment),
      begin_(aligned(bytes_.data())),
      executed_(program.changed.size(), 0) {
  std::memcpy(begin_, program.registers.data(), program.registers.size());
}

void RegisterFile::renew() {
  for (std::size_t stretch = 0; stretch < executed_.size(); ++stretch) {
    if (executed_[stretch] == 0) continue;
    executed_[stretch] = 0;
    for (const auto& [begin, end] : program_->changed[stretch]) {
      std::memcpy(begin_ + begin, program_->registers.data() + begin, end - begin);
    }
  }
}

}  // namespace gpusim
