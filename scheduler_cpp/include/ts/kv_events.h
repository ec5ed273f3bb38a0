// SPDX-License-Identifier: MIT
// What entered and left the prefix cache, in order, for a KV-aware router.
//
// The payload is `[timestamp, [event, ...], dp_rank]` in msgpack with events as maps tagged by
// "type", the form of vLLM's kv_events that Dynamo's ZMQ source reads. Neighbouring events of one
// kind are coalesced: a chain of stored pages is one BlockStored, a run of evictions one
// BlockRemoved.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ts/content_hash.h"
#include "ts/msgpack.h"
#include "ts/types.h"

namespace ts {

// Where a page is, in the words that Dynamo's router knows.
enum class Medium : std::uint8_t { kDevice, kHost };

class KvEventLog {
 public:
  KvEventLog(bool enabled, std::int32_t page_size, std::int32_t dp_rank)
      : enabled_(enabled), page_size_(page_size), dp_rank_(dp_rank) {}

  // `parent` is empty for the first page of a prefix. A salted page carries its salt
  // ("cache_salt"); a salt that is no UTF-8 text cannot travel, so its pages are not published.
  void stored(ContentHash hash, std::optional<ContentHash> parent, std::span<const Token> tokens,
              std::string_view salt, Medium medium = Medium::kDevice);
  void removed(ContentHash hash, std::string_view salt, Medium medium = Medium::kDevice);
  void cleared();
  // Forgets what was not drained: what is announced next supersedes it.
  void forget();

  [[nodiscard]] bool enabled() const { return enabled_; }
  [[nodiscard]] bool empty() const { return records_.empty(); }

  // The payload of everything since the last call, which is then forgotten.
  [[nodiscard]] std::string drain(double timestamp);

 private:
  enum class Kind : std::uint8_t { kStored, kRemoved, kCleared };

  struct Record {
    Kind kind;
    Medium medium = Medium::kDevice;
    std::optional<ContentHash> parent;
    std::string salt;
    std::size_t hashes_end = 0;  // in hashes_; the record begins where the one before ends
    std::size_t tokens_end = 0;  // in tokens_, as msgpack
    std::size_t tokens = 0;      // of the record
  };

  [[nodiscard]] std::size_t largest_payload() const;

  bool enabled_;
  std::int32_t page_size_;
  std::int32_t dp_rank_;
  std::vector<Record> records_;
  std::vector<ContentHash> hashes_;
  MsgpackBuffer tokens_;  // encoded when stored, so that draining is copying
};

}  // namespace ts
