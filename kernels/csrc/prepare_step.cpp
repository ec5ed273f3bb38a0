// SPDX-License-Identifier: MIT
#include "prepare_step.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace ts {
namespace {

// The arena's words; ts_kernels/step_arena.py gives their meaning.
struct Arena {
  explicit Arena(const std::int32_t* words)
      : rows(words[1]),
        absorbed_rows(words[2]),
        absorbed_tokens(words[4]),
        admissions(words[6]),
        patches(words[7]),
        row_slot(words + words[8]),
        row_start(words + words[9]),
        row_tokens(words + words[10]),
        row_samples(words + words[11]),
        admitted_slot(words + words[12]),
        admitted_offset(words + words[13]),
        admitted_tokens(words + words[14]),
        page_patch(words + words[15]) {}

  std::int64_t rows, absorbed_rows, absorbed_tokens, admissions, patches;
  const std::int32_t *row_slot, *row_start, *row_tokens, *row_samples;
  const std::int32_t *admitted_slot, *admitted_offset, *admitted_tokens, *page_patch;
};

void check(const char* what, std::int64_t value, std::int64_t end) {
  if (value >= 0 && value < end) return;
  throw std::out_of_range(std::string(what) + " is " + std::to_string(value) +
                          ", but must be in [0, " + std::to_string(end) + ")");
}

void check(const PrepareArgs& a, const Arena& step) {
  for (std::int64_t i = 0; i < step.admissions; ++i) {
    check("an admission's slot", step.admitted_slot[i], a.slots);
    check("an admission's history", step.admitted_offset[i + 1] - step.admitted_offset[i],
          a.max_tokens + 1);
  }
  for (std::int64_t i = 0; i < step.patches; ++i) {
    const std::int32_t* patch = step.page_patch + (3 * i);
    check("a patch's slot", patch[0], a.slots);
    check("a patch's column", patch[1], a.columns);
    check("a patch's page", patch[2], a.num_pages);
  }
  for (std::int64_t row = 0; row < step.rows; ++row) {
    check("a row's slot", step.row_slot[row], a.slots);
    check("a row's start", step.row_start[row], a.max_tokens);
    check("a row's end", step.row_start[row] + std::int64_t{step.row_tokens[row]},
          a.max_tokens + 1);
  }
}

void patch(const PrepareArgs& a, const Arena& step) {
  for (std::int64_t i = 0; i < step.admissions; ++i) {
    const std::int32_t* history = step.admitted_tokens;
    std::copy(history + step.admitted_offset[i], history + step.admitted_offset[i + 1],
              a.tokens + (step.admitted_slot[i] * a.max_tokens));
  }
  for (std::int64_t i = 0; i < step.patches; ++i) {
    const std::int32_t* patch = step.page_patch + (3 * i);
    a.pages[(patch[0] * a.columns) + patch[1]] = patch[2];
  }
}

}  // namespace

void prepare_step(const PrepareArgs& a) {
  const Arena step(a.arena);
  check(a, step);
  patch(a, step);

  std::int64_t token = 0;
  std::int64_t sample = 0;
  a.query_start[0] = 0;
  for (std::int64_t row = 0; row < step.rows; ++row) {
    const std::int32_t slot = step.row_slot[row];
    const std::int64_t start = step.row_start[row];
    const std::int64_t end = start + step.row_tokens[row];
    const std::int32_t* history = a.tokens + (slot * a.max_tokens);
    const std::int32_t* pages = a.pages + (slot * a.columns);
    const bool absorbed = row < step.absorbed_rows;
    for (std::int64_t position = start; position < end; ++position, ++token) {
      a.token_ids[token] = history[position];
      a.positions[token] = position;
      a.cache_index[token] =
          (pages[position / a.page_size] * a.page_size) + (position % a.page_size);
      a.token_slots[token] = slot;
      if (absorbed) a.absorbed_context[token] = static_cast<std::int32_t>(position + 1);
    }
    if (!absorbed) {
      const std::int64_t at = row - step.absorbed_rows;
      a.expanded_slots[at] = slot;
      a.query_start[at + 1] = static_cast<std::int32_t>(token - step.absorbed_tokens);
      a.expanded_context[at] = static_cast<std::int32_t>(end);
    }
    if (step.row_samples[row] != 0) {
      a.sample_index[sample] = token - 1;
      a.sample_slots[sample] = slot;
      a.sample_positions[sample] = end;
      ++sample;
    }
  }
}

}  // namespace ts
