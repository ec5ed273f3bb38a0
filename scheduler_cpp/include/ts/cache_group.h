// SPDX-License-Identifier: MIT
// Cache groups: pages of one geometry. Every model has the full-attention group; hybrid models have
// further ones, whose pages are needed only near the end of the context.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ts/types.h"

namespace ts {

enum class CacheGroupKind : std::uint8_t {
  // Attention to the last `window` tokens, their own included.
  kSlidingWindow = 0,
  // A state that each token updates. A page holds the state after the last token computed in its
  // column; a row reads the page of the column that its first token's predecessor is in.
  kRecurrent = 1,
};

struct CacheGroup {
  CacheGroupKind kind = CacheGroupKind::kSlidingWindow;
  std::int32_t num_pages = 0;
  std::int32_t window = 0;  // tokens; 0 for a recurrent group

  bool operator==(const CacheGroup&) const = default;

  // The first column that computing the token at `position` still reads.
  [[nodiscard]] std::int32_t first_column(std::int32_t position, std::int32_t page_size) const {
    const std::int32_t oldest =
        kind == CacheGroupKind::kRecurrent ? position - 1 : position + 1 - window;
    return std::max(0, oldest) / page_size;
  }

  // Pages with which one sequence can always go on: what it reads, a page to write, and one that a
  // step in flight writes.
  [[nodiscard]] std::int32_t least_pages(std::int32_t page_size) const {
    const std::int32_t reads =
        kind == CacheGroupKind::kRecurrent ? 1 : pages_for(window, page_size) + 1;
    return reads + 2;
  }
};

}  // namespace ts
