// SPDX-License-Identifier: MIT
#include "ts/submission.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace ts {
namespace {

[[noreturn]] void refuse(const std::string& sentence) {
  throw std::invalid_argument(sentence);
}

void check_tokens(const char* name, std::span<const Token> tokens, std::int32_t vocab_size) {
  // One pass without a branch. Two masks, since baseline x86-64 has vectors of signed comparisons
  // only: the sign of `any_bit` tells of a negative id, `beyond` of one that is too large.
  Token any_bit = 0;
  Token beyond = 0;
  for (const Token token : tokens) {
    any_bit |= token;
    beyond |= token >= vocab_size ? -1 : 0;
  }
  if (any_bit >= 0 && beyond == 0) return;
  const auto bad = std::ranges::find_if(
      tokens, [vocab_size](Token token) { return token < 0 || token >= vocab_size; });
  refuse(std::string(name) + "[" + std::to_string(bad - tokens.begin()) + "] is " +
         std::to_string(*bad) + ", but token ids are 0 to " + std::to_string(vocab_size - 1));
}

// Prompt and output together, as long as they may become.
std::int64_t longest(const Submission& submission, const SchedulerConfig& config) {
  const auto prompt = static_cast<std::int64_t>(submission.prompt.size());
  const std::int64_t room = config.max_model_len - prompt;
  return prompt + std::min(submission.max_tokens, room);
}

}  // namespace

void check_submission(const Submission& submission, const SchedulerConfig& config) {
  const auto prompt = static_cast<std::int64_t>(submission.prompt.size());
  if (prompt == 0) refuse("prompt is empty; it needs at least one token");
  if (prompt + 1 > config.max_model_len) {
    refuse("prompt has " + std::to_string(prompt) + " tokens, but with one token of output the " +
           "context holds at most " + std::to_string(config.max_model_len) +
           " (max_model_len); shorten the prompt to " + std::to_string(config.max_model_len - 1));
  }
  check_tokens("prompt", submission.prompt, config.vocab_size);
  if (submission.max_tokens < 1) {
    refuse("max_tokens is " + std::to_string(submission.max_tokens) + "; it must be at least 1");
  }
  if (submission.min_tokens < 0 || submission.min_tokens > submission.max_tokens) {
    refuse("min_tokens is " + std::to_string(submission.min_tokens) +
           "; it must be between 0 and max_tokens (" + std::to_string(submission.max_tokens) + ")");
  }
  check_tokens("eos_token_ids", submission.eos_token_ids, config.vocab_size);
  check_tokens("stop_token_ids", submission.stop_token_ids, config.vocab_size);
  if (submission.role == Role::kPrefill && submission.max_tokens != 1) {
    refuse("max_tokens is " + std::to_string(submission.max_tokens) +
           ", but with role prefill it must be 1: the other tokens are decoded elsewhere");
  }
  if (submission.role != Role::kAggregated && !config.cache_groups.empty()) {
    refuse("role must be aggregated with cache_groups: only full-attention pages can be sent");
  }
  if (submission.priority == INT64_MIN) {
    refuse("priority is " + std::to_string(submission.priority) + "; it must be larger");
  }
  if (!submission.params.empty() &&
      submission.params.size() != static_cast<std::size_t>(config.params_size)) {
    refuse("params has " + std::to_string(submission.params.size()) +
           " bytes; it must have params_size (" + std::to_string(config.params_size) + ") or none");
  }
  // The last token's KV is never needed.
  const std::int64_t length = longest(submission, config);
  const std::int32_t pages = pages_for(length - 1, config.page_size);
  if (pages > config.num_pages) {
    const auto fits = static_cast<std::int64_t>(config.num_pages) * config.page_size + 1 - prompt;
    refuse("prompt and max_tokens may grow to " + std::to_string(length) + " tokens and need " +
           std::to_string(pages) + " pages, but the pool has " + std::to_string(config.num_pages) +
           " (num_pages); " +
           (fits > 0 ? "lower max_tokens to " + std::to_string(fits) : "shorten the prompt") +
           " or enlarge the pool");
  }
}

RequestPtr make_request(const Submission& submission, const SchedulerConfig& config,
                        RequestPool& requests, SaltTable& salts, std::uint64_t arrival) {
  const auto prompt = static_cast<std::int32_t>(submission.prompt.size());
  const auto max_length = static_cast<std::int32_t>(longest(submission, config));
  const auto min_length =
      prompt + static_cast<std::int32_t>(std::min<std::int64_t>(submission.min_tokens, max_length));
  std::vector<Token> stops(submission.stop_token_ids.begin(), submission.stop_token_ids.end());
  if (!submission.ignore_eos) {
    stops.insert(stops.end(), submission.eos_token_ids.begin(), submission.eos_token_ids.end());
  }
  // Room for all of them: a sampled token never reallocates.
  std::vector<Token> tokens = requests.token_memory(static_cast<std::size_t>(max_length));
  tokens.assign(submission.prompt.begin(), submission.prompt.end());
  return requests.make(Request{.id = submission.id,
                               .tokens = std::move(tokens),
                               .stop = StopConditions(stops, min_length, max_length),
                               .forms = Forms(prompt, config.absorb_from),
                               .order = {-submission.priority, arrival},
                               .salt = salts.intern(submission.cache_salt),
                               .params = {submission.params.begin(), submission.params.end()},
                               .role = submission.role});
}

}  // namespace ts
