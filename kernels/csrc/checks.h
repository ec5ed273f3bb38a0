// SPDX-License-Identifier: MIT
//
// What a kernel takes for granted of the values in its arguments: an index outside its table would
// be a write or a read anywhere in memory. One pass over the indices of a step costs nanoseconds.
// What can be seen from sizes and types is checked in ts_kernels/native.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace ts {

// std::out_of_range (an IndexError) with a sentence unless each index is in [0, end).
template <class Index>
void check_indices(const char* name, const Index* index, std::int64_t count, std::int64_t end) {
  std::uint64_t largest = 0;  // a negative one is larger than any
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, static_cast<std::uint64_t>(static_cast<std::int64_t>(index[i])));
  }
  if (count == 0 || largest < static_cast<std::uint64_t>(end)) return;
  const Index* const bad = std::find_if(index, index + count, [end](Index at) {
    return at < 0 || static_cast<std::int64_t>(at) >= end;
  });
  throw std::out_of_range(std::string(name) + "[" + std::to_string(bad - index) + "] is " +
                          std::to_string(*bad) + ", but must be in [0, " + std::to_string(end) +
                          ")");
}

}  // namespace ts
