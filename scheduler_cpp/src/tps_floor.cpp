// SPDX-License-Identifier: MIT
#include "ts/tps_floor.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ts {
namespace {

constexpr double kMargin = 0.95;      // of the longest step: predictions are not exact
constexpr double kDecodeShare = 0.9;  // of the time: admission leaves the rest to prefill
constexpr double kEfficiency = 0.75;  // of a chunk, against the one that was wanted
constexpr double kFull = 0.9;         // of the stall: waiting longer saves up little more
constexpr double kPatience = 4;       // stalls that a prefill waits for its next chunk
constexpr double kOwed = 0.5;         // of a stall: what it gets then, whatever the floor says
constexpr double kHopeless = 1.25;    // a token of a user alone against the floor's: it is given up
constexpr double kStallSeconds = 1;   // or kStallTokens token times, if that is longer
constexpr double kStallTokens = 10;
constexpr double kUnbound = std::numeric_limits<double>::infinity();
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

void TpsFloor::begin(double in_flight) {
  in_flight_ = in_flight;
  longest_ = kUnbound;
  if (granted_ || !short_of_time_) put_off_since_ = now_;
  granted_ = false;
  short_of_time_ = false;
  held_in_step_ = 0;
}

void TpsFloor::decodes(double paid_until, bool again) {
  const double ahead = paid_until - now_ - in_flight_ + (again ? row_seconds() : 0);
  longest_ = std::min(longest_, ahead + row_seconds());
}

void TpsFloor::decodes_next() {
  longest_ = std::min(longest_, row_seconds());
}

void TpsFloor::limit(const StepShape& decodes) {
  if (decodes.decode_rows == 0 || !model_.knows() ||
      !attainable(decodes.decode_context / decodes.decode_rows)) {
    longest_ = kUnbound;
    return;
  }
  longest_ = kMargin * std::min(longest_, stall());
}

std::int32_t TpsFloor::grant(const StepShape& step, std::int32_t start, std::int32_t wanted,
                             std::int32_t least) {
  if (longest_ == kUnbound || wanted <= 0) return wanted;
  if (short_of_time_) return 0;
  const double without = model_.seconds(step);
  const auto cost = [&](std::int32_t tokens) {
    StepShape with = step;
    with.add_chunk(start, tokens);
    return model_.seconds(with) - without;
  };
  const auto fitting = [&](double seconds) {
    std::int32_t fits = 0;  // the cost only grows with the tokens
    std::int32_t too_many = wanted + 1;
    while (fits + 1 < too_many) {
      const std::int32_t tokens = fits + ((too_many - fits) / 2);
      (cost(tokens) <= seconds ? fits : too_many) = tokens;
    }
    return fits;
  };
  const double room = longest_ - without;
  const double all = cost(wanted);
  std::int32_t tokens = wanted;
  if (all > room) {
    least = std::min(least, wanted);
    tokens = fitting(room);
    const bool efficient = tokens * all >= kEfficiency * wanted * cost(tokens);
    const bool saved_up = longest_ >= kFull * kMargin * stall();
    if (tokens < least || !(efficient || saved_up)) tokens = 0;
    if (tokens == 0 && !granted_ && now_ - put_off_since_ >= kPatience * stall()) {
      tokens = std::max(least, fitting(kOwed * stall()));
    }
    short_of_time_ = tokens < wanted;
  }
  granted_ |= tokens > 0;
  return tokens;
}

void TpsFloor::hold(std::int32_t tokens, std::int32_t first_time) {
  held_in_step_ += tokens;
  report_.held_prefill_tokens += first_time;
}

bool TpsFloor::admits(const StepShape& running, std::int64_t context) const {
  if (!any() || !model_.knows() || running.decode_rows == 0) return true;
  if (short_of_time_) return false;
  if (!attainable(context)) return true;  // holding it back would help nobody
  StepShape joined = running;
  joined.add_decode(context);
  return model_.seconds(joined) <= kDecodeShare * row_seconds();
}

bool TpsFloor::attainable(std::int64_t context) const {
  StepShape alone;
  alone.add_decode(context);
  return model_.seconds(alone) <= kHopeless * row_seconds();
}

double TpsFloor::stall() const {
  return std::max(kStallSeconds, kStallTokens * token_seconds());
}

double TpsFloor::planned(const StepShape& shape) {
  report_.predicted_step_seconds = model_.knows() ? model_.seconds(shape) : 0;
  return report_.predicted_step_seconds;
}

void TpsFloor::lasted(const StepShape& shape, double seconds) {
  if (seconds <= 0) return;
  now_ += seconds;
  constexpr double kShortest = 1e-9;  // no clock resolves less
  if (any() && shape.any_rows()) model_.learn(shape, std::max(seconds, kShortest));
}

void TpsFloor::yielded(std::int64_t tokens, std::int32_t rows) {
  if (rows == 0) return;
  tokens_per_row_ += 0.05 * (static_cast<double>(tokens) / rows - tokens_per_row_);
}

// Neither a credit nor a debt grows beyond one stall.
double TpsFloor::pay(double paid_until, std::int32_t tokens) const {
  return std::clamp(paid_until + (tokens * token_seconds()), now_ - stall(), now_ + stall());
}

// The first token ends the prefill; the rate is that of the tokens behind it.
void TpsFloor::finished(std::int64_t output_tokens, double first_token_at) {
  const double seconds = now_ - first_token_at;
  if (output_tokens < 2 || seconds <= 0) return;
  attained_.add(static_cast<double>(output_tokens - 1) / seconds);
}

FloorReport TpsFloor::report() {
  if (report_.users != attained_.count()) {
    report_.users = attained_.count();
    report_.attained_p1 = attained_.quantile(0.01);
    report_.attained_p50 = attained_.quantile(0.5);
  }
  return report_;
}

}  // namespace ts
