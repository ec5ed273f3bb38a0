// SPDX-License-Identifier: MIT
#include "ts/kv_events.h"

#include <utility>

namespace ts {
namespace {

// Length of the UTF-8 sequence that `lead` begins, 0 if it begins none.
std::size_t sequence_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const std::size_t length = sequence_length(lead);
    if (length == 0 || at + length > text.size()) return false;
    std::uint32_t point = length == 1 ? lead : lead & (0x7fU >> length);
    for (std::size_t i = 1; i < length; ++i) {
      const auto next = static_cast<unsigned char>(text[at + i]);
      if ((next & 0xc0) != 0x80) return false;
      point = (point << 6) | (next & 0x3f);
    }
    const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
    const bool surrogate = point >= 0xd800 && point <= 0xdfff;
    if (overlong || surrogate || point > 0x10ffff) return false;
    at += length;
  }
  return true;
}

std::string_view name(Medium medium) {
  return medium == Medium::kDevice ? "GPU" : "CPU_TIER1";
}

// Hashes travel as signed 64-bit integers: the one form every consumer reads.
std::int64_t wire_hash(ContentHash hash) {
  return static_cast<std::int64_t>(hash);
}

}  // namespace

void KvEventLog::stored(ContentHash hash, std::optional<ContentHash> parent,
                        std::span<const Token> tokens, std::string_view salt, Medium medium) {
  if (!enabled_ || !is_utf8(salt)) return;
  const bool continues = !records_.empty() && records_.back().kind == Kind::kStored &&
                         records_.back().medium == medium && parent == hashes_.back();
  if (!continues) {
    records_.push_back(
        {.kind = Kind::kStored, .medium = medium, .parent = parent, .salt = std::string(salt)});
  }
  hashes_.push_back(hash);
  tokens_.append(tokens);
  records_.back().hashes_end = hashes_.size();
  records_.back().tokens_end = tokens_.size();
  records_.back().tokens += tokens.size();
}

void KvEventLog::removed(ContentHash hash, std::string_view salt, Medium medium) {
  if (!enabled_ || !is_utf8(salt)) return;
  if (records_.empty() || records_.back().kind != Kind::kRemoved ||
      records_.back().medium != medium) {
    records_.push_back({.kind = Kind::kRemoved, .medium = medium, .parent = {}, .salt = {}});
  }
  hashes_.push_back(hash);
  records_.back().hashes_end = hashes_.size();
  records_.back().tokens_end = tokens_.size();
}

void KvEventLog::cleared() {
  if (!enabled_) return;
  records_.push_back({.kind = Kind::kCleared,
                      .parent = {},
                      .salt = {},
                      .hashes_end = hashes_.size(),
                      .tokens_end = tokens_.size()});
}

void KvEventLog::forget() {
  records_.clear();
  hashes_.clear();
  tokens_.clear();
}

std::size_t KvEventLog::largest_payload() const {
  constexpr std::size_t kEnvelope = 64;  // arrays, timestamp, rank
  constexpr std::size_t kWords = 160;    // of one event: its keys, headers and scalars
  std::size_t size = kEnvelope + (hashes_.size() * MsgpackWriter::kMaxInteger) + tokens_.size();
  for (const Record& record : records_) size += kWords + record.salt.size();
  return size;
}

std::string KvEventLog::drain(double timestamp) {
  std::string payload(largest_payload(), '\0');
  MsgpackWriter out(payload.data());
  out.array(3);
  out.real(timestamp);
  out.array(records_.size());
  std::size_t hash_at = 0;
  std::size_t token_at = 0;
  const auto write_hashes = [&](std::size_t end) {
    out.string("block_hashes");
    out.array(end - hash_at);
    for (; hash_at < end; ++hash_at) out.integer(wire_hash(hashes_[hash_at]));
  };
  for (const Record& record : records_) {
    switch (record.kind) {
      case Kind::kStored:
        out.map(record.salt.empty() ? 6 : 7);
        out.string("type");
        out.string("BlockStored");
        write_hashes(record.hashes_end);
        out.string("parent_block_hash");
        if (record.parent) {
          out.integer(wire_hash(*record.parent));
        } else {
          out.nil();
        }
        out.string("token_ids");
        out.array(record.tokens);
        out.raw(tokens_.bytes(std::exchange(token_at, record.tokens_end), record.tokens_end));
        out.string("block_size");
        out.integer(page_size_);
        out.string("medium");
        out.string(name(record.medium));
        if (!record.salt.empty()) {
          out.string("cache_salt");
          out.string(record.salt);
        }
        break;
      case Kind::kRemoved:
        out.map(3);
        out.string("type");
        out.string("BlockRemoved");
        write_hashes(record.hashes_end);
        out.string("medium");
        out.string(name(record.medium));
        break;
      case Kind::kCleared:
        out.map(1);
        out.string("type");
        out.string("AllBlocksCleared");
        break;
    }
  }
  out.integer(dp_rank_);
  payload.resize(static_cast<std::size_t>(out.position() - payload.data()));
  forget();
  return payload;
}

}  // namespace ts
