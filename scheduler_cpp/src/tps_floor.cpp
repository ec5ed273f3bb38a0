// SPDX-License-Identifier: MIT
#include "ts/tps_floor.h"

#include <algorithm>
#include <cmath>

namespace ts {
namespace {

constexpr double kMargin = 0.95;        // of the longest step: predictions are not exact
constexpr double kLowest = 0.01;        // tokens/s of the first bucket
constexpr double kRatio = 1.01;         // of neighbouring buckets
constexpr std::size_t kBuckets = 2048;  // up to 7 million tokens/s

}  // namespace

RateHistogram::RateHistogram() : buckets_(kBuckets) {}

void RateHistogram::add(double tokens_per_second) {
  const double at = std::log(std::max(tokens_per_second, kLowest) / kLowest) / std::log(kRatio);
  ++buckets_[std::min(static_cast<std::size_t>(at), kBuckets - 1)];
  ++count_;
}

double RateHistogram::quantile(double fraction) const {
  if (count_ == 0) return 0;
  const auto rank = static_cast<std::int64_t>(fraction * static_cast<double>(count_));
  std::int64_t below = 0;
  std::size_t at = 0;
  while (at + 1 < kBuckets && below + buckets_[at] <= rank) below += buckets_[at++];
  return kLowest * std::pow(kRatio, static_cast<double>(at) + 0.5);
}

double TpsFloor::longest_step() const {
  return kMargin * tokens_per_row_ / min_tps_;
}

void TpsFloor::begin(const StepShape& decodes) {
  shape_ = decodes;
  unbound_ = !binds() || decodes.decode_rows == 0;
  least_granted_ = false;
}

std::int32_t TpsFloor::grant(std::int32_t start, std::int32_t wanted, std::int32_t least) {
  if (unbound_ || wanted == 0) return wanted;
  const auto with = [this, start](std::int32_t tokens) {
    StepShape shape = shape_;
    shape.prefill_tokens += tokens;
    shape.context_tokens += start + tokens;
    return model_.seconds(shape);
  };
  const double limit = longest_step();
  std::int32_t fits = wanted;
  if (with(wanted) > limit) {
    // Linear in the tokens: one interpolation, rounded down.
    const double none = with(0);
    const double slope = (with(wanted) - none) / wanted;
    const double tokens = slope > 0 ? (limit - none) / slope : 0;
    fits = static_cast<std::int32_t>(std::clamp(tokens, 0.0, static_cast<double>(wanted)));
  }
  if (!least_granted_) fits = std::max(fits, std::min(wanted, least));
  report_.held_prefill_tokens += wanted - fits;
  return fits;
}

void TpsFloor::spend(std::int32_t start, std::int32_t tokens) {
  shape_.prefill_tokens += tokens;
  shape_.context_tokens += start + tokens;
  least_granted_ = true;
}

bool TpsFloor::admits(const StepShape& running, std::int64_t context) const {
  if (!binds() || running.decode_rows == 0) return true;
  const double limit = longest_step();
  const StepShape alone{.decode_rows = 1, .context_tokens = context};
  if (model_.seconds(alone) > limit) return true;  // holding it back would help nobody
  StepShape joined = running;
  ++joined.decode_rows;
  joined.context_tokens += context;
  return model_.seconds(joined) <= limit;
}

void TpsFloor::planned(const StepShape& shape) {
  report_.predicted_step_seconds = model_.knows() ? model_.seconds(shape) : 0;
}

void TpsFloor::lasted(const StepShape& shape, double seconds) {
  if (seconds <= 0) return;
  now_ += seconds;
  model_.learn(shape, seconds);
}

void TpsFloor::yielded(std::int64_t tokens, std::int32_t rows) {
  if (rows == 0) return;
  tokens_per_row_ += 0.05 * (static_cast<double>(tokens) / rows - tokens_per_row_);
}

// The first token ends the prefill; the rate is that of the tokens behind it.
void TpsFloor::finished(std::int64_t output_tokens, double first_token_at) {
  const double seconds = now_ - first_token_at;
  if (output_tokens < 2 || seconds <= 0) return;
  attained_.add(static_cast<double>(output_tokens - 1) / seconds);
}

FloorReport TpsFloor::report() const {
  FloorReport report = report_;
  report.users = attained_.count();
  report.attained_p1 = attained_.quantile(0.01);
  report.attained_p50 = attained_.quantile(0.5);
  return report;
}

}  // namespace ts
