// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>

namespace ts {

// DeepSeek-V3's group-limited sigmoid routing; see ts_kernels.moe_route.
struct RouteArgs {
  const float *logits, *bias;
  float* weights;
  std::int64_t* ids;
  std::int64_t tokens, experts, top_k, groups, top_groups;
  bool normalise;
  float scale;
};

void route(const RouteArgs& args);

}  // namespace ts
