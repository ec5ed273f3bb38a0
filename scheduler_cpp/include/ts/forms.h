// SPDX-License-Identifier: MIT
// In which form a token is computed. Latent attention has two that round differently: the expanded
// one, cheap for long chunks, and the absorbed one, cheap for few tokens. So that no answer depends
// on how its prompt was cut, on what was cached or on who ran beside it, the form is a function of
// the request alone: prompt tokens before `absorb_from` are expanded, all others are absorbed.
//
// A page is known by how many of its tokens, its first ones, are expanded. A sequence takes another
// one's page for tokens that it generates, or again for those that it has generated, only if the
// page was computed as it would compute it; for tokens of its prompt any page will do, since what
// was generated once may stand in a prompt.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ts/types.h"

namespace ts {

struct Forms {
  std::int32_t prompt_length = 0;
  std::int32_t expanded_length = 0;  // tokens before this are expanded, the rest is absorbed

  Forms(std::int32_t prompt, std::int32_t absorb_from)
      : prompt_length(prompt), expanded_length(std::min(prompt, absorb_from)) {}

  // Of the tokens of a column, how many are expanded.
  [[nodiscard]] std::int32_t expanded_in(std::int32_t column, std::int32_t page_size) const {
    return std::clamp(expanded_length - column * page_size, 0, page_size);
  }
  // May a page of the column be taken whose first `expanded` tokens are expanded?
  [[nodiscard]] bool accept(std::int32_t column, std::int32_t page_size,
                            std::int32_t expanded) const {
    return (column + 1) * page_size <= prompt_length || expanded == expanded_in(column, page_size);
  }
};

}  // namespace ts
