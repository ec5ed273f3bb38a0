// SPDX-License-Identifier: MIT
// The registers of a warp. A program has thousands of them (PTX knows no limit), of which a warp
// uses those of its role: for a warp of the next cluster, only what may have changed is renewed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "program.h"

namespace gpusim {

class RegisterFile {
 public:
  explicit RegisterFile(const Program& program);

  // As new, for another warp of the same program.
  void renew();
  // The instruction at `pc` is about to change registers.
  void executes(std::uint32_t pc) { executed_[pc / Program::kStretch] = 1; }

  template <class T>
  [[nodiscard]] T* place(std::int32_t at) {
    return reinterpret_cast<T*>(begin_ + at);
  }

 private:
  const Program* program_;
  std::vector<std::byte> bytes_;
  std::byte* begin_;                    // aligned to what vector instructions like
  std::vector<std::uint8_t> executed_;  // a flag for each stretch
};

}  // namespace gpusim
