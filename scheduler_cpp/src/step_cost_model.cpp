// SPDX-License-Identifier: MIT
#include "ts/step_cost_model.h"

#include <algorithm>
#include <cmath>

namespace ts {
namespace {

constexpr double kForget = 0.998;       // weight of a step, per later step
constexpr double kMostUncertain = 1e6;  // trace of the covariance up to which steps are forgotten
constexpr double kCut = 4;              // usual errors that an outlier counts for

// Brings the terms to the same order of magnitude, for the sake of the arithmetic.
constexpr double kRows = 1.0 / 64;
constexpr double kPrefill = 1.0 / 1024;
constexpr double kContext = 1.0 / (1 << 20);

}  // namespace

std::array<StepCostModel::Terms, StepCostModel::kTerms> StepCostModel::identity(double scale) {
  std::array<Terms, kTerms> matrix{};
  for (std::size_t i = 0; i < kTerms; ++i) matrix[i][i] = scale;
  return matrix;
}

StepCostModel::Terms StepCostModel::terms(const StepShape& shape) {
  return {1.0, shape.decode_rows * kRows, shape.prefill_tokens * kPrefill,
          static_cast<double>(shape.context_tokens) * kContext};
}

// More work never makes a step shorter, whatever the noise made of a weight.
double StepCostModel::predict(const Terms& x) const {
  double sum = 0;
  for (std::size_t i = 0; i < kTerms; ++i) sum += std::max(weights_[i], 0.0) * x[i];
  return sum;
}

double StepCostModel::seconds(const StepShape& shape) const {
  return predict(terms(shape));
}

void StepCostModel::learn(const StepShape& shape, double seconds) {
  const Terms x = terms(shape);
  double fitted = 0;
  for (std::size_t i = 0; i < kTerms; ++i) fitted += weights_[i] * x[i];
  double error = seconds - fitted;
  if (knows()) {  // a clock that jumped, or a machine that slept, is one outlier
    const double most = kCut * (usual_error_ + (0.1 * std::abs(fitted)));
    error = std::clamp(error, -most, most);
  }
  usual_error_ += (std::abs(error) - usual_error_) * (learned_ < kEnough ? 0.5 : 0.05);

  Terms px{};
  double gain_scale = kForget;
  for (std::size_t i = 0; i < kTerms; ++i) {
    for (std::size_t j = 0; j < kTerms; ++j) px[i] += covariance_[i][j] * x[j];
    gain_scale += x[i] * px[i];
  }
  double trace = 0;
  for (std::size_t i = 0; i < kTerms; ++i) trace += covariance_[i][i];
  // A step that repeats teaches nothing about other shapes: without a bound, forgetting would
  // make the model ever more ready to believe the next noise.
  const double forget = trace < kMostUncertain ? kForget : 1.0;
  for (std::size_t i = 0; i < kTerms; ++i) {
    weights_[i] += px[i] / gain_scale * error;
    for (std::size_t j = 0; j < kTerms; ++j) {
      covariance_[i][j] = (covariance_[i][j] - (px[i] * px[j] / gain_scale)) / forget;
    }
  }
  ++learned_;
}

}  // namespace ts
