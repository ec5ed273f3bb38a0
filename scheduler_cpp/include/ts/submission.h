// SPDX-License-Identifier: MIT
// The door: a submission is checked once, here, and becomes a request.
#pragma once

#include "ts/config.h"
#include "ts/request.h"

namespace ts {

// Throws std::invalid_argument with one sentence: value, limit, way out.
void check_submission(const Submission& submission, const SchedulerConfig& config);

// Precondition: checked.
[[nodiscard]] RequestPtr make_request(const Submission& submission, const SchedulerConfig& config,
                                      RequestPool& requests, SaltTable& salts,
                                      std::uint64_t arrival);

}  // namespace ts
