// SPDX-License-Identifier: MIT
#include "ts/step_cost_model.h"

#include <algorithm>
#include <cmath>

namespace ts {
namespace {

constexpr double kForget = 0.99;     // weight of a step, per later step of its kind
constexpr double kForgetFast = 0.9;  // while predictions are off all the time
constexpr double kOff = 0.2;         // mean error, relative to the prediction
constexpr double kOffMemory = 0.9;
constexpr double kShortest = 1e-7;  // seconds: what a clock says beyond is wrong
constexpr double kLongest = 1e4;
constexpr double kOutlier = 4;    // times as long as predicted: what is longer counts less and less
constexpr double kBeside = 0.05;  // weight of a step beside transfers
constexpr double kLeast = 1e-10;  // of a term's own sum, for the sake of the square root
// Of a term's own sum. Where terms only occurred together, as with one user all the time, the cost
// goes to the first of them, the step or the chunk itself: so a second user is tried, and the
// difference is learned.
constexpr double kRidge = 1e-4;

// Brings the terms to the same order of magnitude, for the sake of the arithmetic.
constexpr double kRows = 1.0 / 64;
constexpr double kTokens = 1.0 / 1024;
constexpr double kContext = 1.0 / (1 << 16);
constexpr double kPairs = 1.0 / (1 << 24);

}  // namespace

StepCostModel::Terms StepCostModel::terms(const StepShape& shape) {
  return {1.0,
          shape.decode_rows * kRows,
          static_cast<double>(shape.decode_context) * kContext,
          static_cast<double>(shape.chunks),
          shape.prefill_tokens * kTokens,
          static_cast<double>(shape.prefill_context) * kContext,
          static_cast<double>(shape.prefill_pairs) * kPairs};
}

double StepCostModel::seconds(const StepShape& shape) const {
  const Terms x = terms(shape);
  double sum = 0;
  for (std::size_t i = 0; i < kTerms; ++i) sum += weights_[i] * x[i];
  return shape.beside_transfers ? beside_ * sum : sum;
}

// Errors count relative to the prediction, since long steps vary more than short ones. So a clock
// that stood still is one step's error, and one that jumped counts next to nothing.
void StepCostModel::learn(const StepShape& shape, double lasted) {
  const double seconds = std::clamp(lasted, kShortest, kLongest);
  if (shape.beside_transfers && knows()) return learn_beside(shape, seconds);
  const double scale = knows() ? std::max(this->seconds(shape), seconds / kOutlier) : seconds;
  Sums& sums = shape.chunks == 0 ? decodes_ : prefills_;
  const double error = std::clamp((seconds - this->seconds(shape)) / scale, -1.0, 1.0);
  error_ = (kOffMemory * error_) + ((1 - kOffMemory) * (knows() ? error : 0));
  const double forget = std::abs(error_) > kOff ? kForgetFast : kForget;
  sums.add(terms(shape), seconds, 1 / (scale * scale), forget);
  ++learned_;
  if (shape.chunks == 0) {
    fit(decodes_, 0, kDecodeTerms);
  } else {
    fit(prefills_, kDecodeTerms, kTerms);
  }
}

// A transfer takes its share of cores and memory for as long as it lasts, whatever the step
// computes, so a step beside it takes a multiple of its time.
void StepCostModel::learn_beside(StepShape shape, double seconds) {
  shape.beside_transfers = false;
  const double alone = std::max(this->seconds(shape), kShortest);
  const double times = std::min(seconds / alone, kOutlier);
  beside_ = std::max(1.0, beside_ + (kBeside * (times - beside_)));
}

void StepCostModel::Sums::add(const Terms& x, double value, double weight, double forget) {
  for (std::size_t i = 0; i < kTerms; ++i) {
    for (std::size_t j = 0; j < kTerms; ++j) {
      terms[i][j] = (forget * terms[i][j]) + (weight * x[i] * x[j]);
    }
    seconds[i] = (forget * seconds[i]) + (weight * x[i] * value);
  }
}

// Solves the normal equations by Cholesky factors; while a weight comes out negative, the most
// negative one is fixed at zero and the others are solved for again.
void StepCostModel::fit(const Sums& sums, std::size_t begin, std::size_t end) {
  std::array<bool, kTerms> free{};
  for (std::size_t i = begin; i < end; ++i) free[i] = sums.terms[i][i] > 0;
  while (true) {
    std::array<Terms, kTerms> lower{};
    Terms solved{};
    for (std::size_t i = begin; i < end; ++i) {
      if (!free[i]) continue;
      const double own = sums.terms[i][i];
      double right = sums.seconds[i];
      for (std::size_t j = 0; j < begin; ++j) right -= sums.terms[i][j] * weights_[j];
      double square = own * (i == begin ? 1 : 1 + kRidge);
      for (std::size_t j = begin; j < i; ++j) {
        if (!free[j]) continue;
        double sum = sums.terms[i][j];
        for (std::size_t k = begin; k < j; ++k) sum -= lower[i][k] * lower[j][k];
        lower[i][j] = sum / lower[j][j];
        square -= lower[i][j] * lower[i][j];
        right -= lower[i][j] * solved[j];
      }
      lower[i][i] = std::sqrt(std::max(square, own * kLeast));
      solved[i] = right / lower[i][i];
    }
    for (std::size_t i = end; i-- > begin;) {
      if (!free[i]) continue;
      for (std::size_t k = i + 1; k < end; ++k) solved[i] -= lower[k][i] * solved[k];
      solved[i] /= lower[i][i];
    }
    const auto worst = std::ranges::min_element(solved);
    if (*worst >= 0) {
      std::copy(solved.begin() + begin, solved.begin() + end, weights_.begin() + begin);
      return;
    }
    free[static_cast<std::size_t>(worst - solved.begin())] = false;
  }
}

}  // namespace ts
