// SPDX-License-Identifier: MIT
// Python values in, checked, with an error that names the argument.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ts/types.h"

namespace ts::python {

namespace nb = nanobind;

// An int (or anything with __index__) within [low, high]; bool is refused.
[[nodiscard]] std::int64_t integer_argument(nb::handle value, const char* name,
                                            std::int64_t low = INT64_MIN,
                                            std::int64_t high = INT64_MAX);
[[nodiscard]] std::uint64_t unsigned_argument(nb::handle value, const char* name);
[[nodiscard]] double real_argument(nb::handle value, const char* name);
[[nodiscard]] bool bool_argument(nb::handle value, const char* name);
[[nodiscard]] std::vector<Token> token_set_argument(nb::handle value, const char* name);

// A contiguous one-dimensional buffer, borrowed for the life of this object.
class BufferArgument {
 public:
  BufferArgument(nb::handle value, const char* name, bool tokens);
  ~BufferArgument() { PyBuffer_Release(&view_); }
  BufferArgument(const BufferArgument&) = delete;
  BufferArgument& operator=(const BufferArgument&) = delete;

  [[nodiscard]] std::span<const Token> tokens() const {
    return {static_cast<const Token*>(view_.buf),
            static_cast<std::size_t>(view_.len) / sizeof(Token)};
  }
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(view_.buf), static_cast<std::size_t>(view_.len)};
  }

 private:
  Py_buffer view_{};
};

}  // namespace ts::python
