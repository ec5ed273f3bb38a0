// SPDX-License-Identifier: MIT
//
// From a step's arena to the inputs of its forward pass; see ts_kernels.prepare_step.
#pragma once

#include <cstdint>

namespace ts {

struct PrepareArgs {
  const std::int32_t* arena;
  std::int32_t *tokens, *pages;  // the slot tables, patched
  std::int64_t slots, max_tokens, columns, page_size, num_pages;
  std::int64_t *token_ids, *positions, *cache_index;  // [T]
  std::int32_t *token_slots, *absorbed_context;       // [T], [absorbed tokens]
  std::int32_t *expanded_slots, *query_start, *expanded_context;
  std::int64_t *sample_index, *sample_slots, *sample_positions;  // [sampling rows]
};

// std::out_of_range, and nothing is written, when the arena names what is not there.
void prepare_step(const PrepareArgs& args);

}  // namespace ts
