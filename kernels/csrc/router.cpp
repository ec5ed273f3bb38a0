// SPDX-License-Identifier: MIT
#include "router.h"

#include <cmath>
#include <limits>

#include "thread_pool.h"

namespace ts {
namespace {

constexpr float kTaken = -std::numeric_limits<float>::infinity();

// NaN counts as larger than any number, as in torch.sort.
bool better(float a, float b) {
  return a > b || (a != a && b == b);
}

// Takes the best of `score`, of equals the first. A taken one is marked, not removed.
std::int64_t take_best(float* score, bool* taken, std::int64_t count) {
  std::int64_t best = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!taken[i] && (best < 0 || better(score[i], score[best]))) best = i;
  }
  taken[best] = true;
  return best;
}

struct Token {
  float* score;   // [experts], without the bias
  float* choice;  // [experts], with it
  float* group;   // [groups]
  bool* taken;    // [experts]
};

void keep_best_groups(const RouteArgs& a, const Token& token) {
  const std::int64_t size = a.experts / a.groups;
  for (std::int64_t g = 0; g < a.groups; ++g) {
    const float* const choice = token.choice + g * size;
    float first = choice[0];
    float second = kTaken;
    for (std::int64_t i = 1; i < size; ++i) {
      if (better(choice[i], first)) {
        second = first;
        first = choice[i];
      } else if (better(choice[i], second)) {
        second = choice[i];
      }
    }
    token.group[g] = first + second;
    token.taken[g] = false;
  }
  for (std::int64_t n = 0; n < a.top_groups; ++n) take_best(token.group, token.taken, a.groups);
  for (std::int64_t g = 0; g < a.groups; ++g) {
    if (token.taken[g]) continue;
    for (std::int64_t i = 0; i < size; ++i) token.choice[g * size + i] = kTaken;
  }
}

void route_token(const RouteArgs& a, const Token& token, std::int64_t t) {
  for (std::int64_t e = 0; e < a.experts; ++e) {
    token.score[e] = 1.0f / (1.0f + std::exp(-a.logits[t * a.experts + e]));
    token.choice[e] = token.score[e] + a.bias[e];
  }
  if (a.groups > 1) keep_best_groups(a, token);
  for (std::int64_t e = 0; e < a.experts; ++e) token.taken[e] = false;
  float* const weights = a.weights + t * a.top_k;
  float sum = 0.0f;
  for (std::int64_t j = 0; j < a.top_k; ++j) {
    const std::int64_t e = take_best(token.choice, token.taken, a.experts);
    a.ids[t * a.top_k + j] = e;
    weights[j] = token.score[e];
    sum += weights[j];
  }
  for (std::int64_t j = 0; j < a.top_k; ++j) {
    weights[j] = (a.normalise ? weights[j] / (sum + 1e-20f) : weights[j]) * a.scale;
  }
}

}  // namespace

void route(const RouteArgs& a) {
  const std::int64_t floats = 2 * a.experts + a.groups;
  const auto bytes = static_cast<std::size_t>((floats * 4 + a.experts + 63) / 64 * 64);
  auto* const scratch = static_cast<std::byte*>(
      scratch_bytes(Scratch::kPerThread, bytes * static_cast<std::size_t>(thread_slots())));
  constexpr std::int64_t kBlock = 16;
  parallel_for((a.tokens + kBlock - 1) / kBlock, [&](std::int64_t block) {
    auto* const floats_of_thread =
        reinterpret_cast<float*>(scratch + bytes * static_cast<std::size_t>(thread_index()));
    const Token token{floats_of_thread, floats_of_thread + a.experts,
                      floats_of_thread + 2 * a.experts,
                      reinterpret_cast<bool*>(floats_of_thread + floats)};
    const std::int64_t end = (block + 1) * kBlock < a.tokens ? (block + 1) * kBlock : a.tokens;
    for (std::int64_t t = block * kBlock; t < end; ++t) route_token(a, token, t);
  });
}

}  // namespace ts
