// SPDX-License-Identifier: MIT
// Integers by their widths, under the short names that tables of instructions are read with.
#pragma once

#include <cstdint>
#include <type_traits>

namespace gpusim {

using std::int16_t;
using std::int32_t;
using std::int64_t;
using std::uint16_t;
using std::uint32_t;
using std::uint64_t;
__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 UInt128;

// Integers wrap around: computed without sign.
template <class T>
using Unsigned = std::make_unsigned_t<T>;

}  // namespace gpusim
