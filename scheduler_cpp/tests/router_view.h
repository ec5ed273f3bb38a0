// SPDX-License-Identifier: MIT
// What a KV-aware router knows of a replica: the blocks it has heard stored and not removed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spec {

// Reads the msgpack forms that KV events use.
class MsgpackReader {
 public:
  explicit MsgpackReader(std::string_view bytes) : rest_(bytes) {}

  [[nodiscard]] bool at_end() const { return rest_.empty(); }
  [[nodiscard]] std::size_t array() { return size(0x90, 0xdc); }
  [[nodiscard]] std::size_t map() { return size(0x80, 0xde); }
  void real() {
    demand(number(1) == 0xcb);
    (void)number(8);
  }
  [[nodiscard]] std::optional<std::int64_t> integer_or_nil() {
    const std::uint64_t lead = number(1);
    if (lead == 0xc0) return std::nullopt;
    if (lead < 0x80) return static_cast<std::int64_t>(lead);
    if (lead == 0xd2) return static_cast<std::int32_t>(number(4));
    demand(lead == 0xd3);
    return static_cast<std::int64_t>(number(8));
  }
  [[nodiscard]] std::string_view text() {
    const std::uint64_t lead = number(1);
    demand((lead & 0xe0) == 0xa0 || lead == 0xdb);
    return bytes(lead == 0xdb ? number(4) : lead & 0x1f);
  }

 private:
  static void demand(bool holds) {
    if (!holds) throw std::logic_error("a KV event is no msgpack of the expected form");
  }
  std::string_view bytes(std::size_t count) {
    demand(count <= rest_.size());
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::uint64_t number(std::size_t width) {
    std::uint64_t value = 0;
    for (const char byte : bytes(width)) value = value << 8 | static_cast<unsigned char>(byte);
    return value;
  }
  std::size_t size(std::uint64_t fixed, std::uint64_t with16) {
    const std::uint64_t lead = number(1);
    if (lead == with16 || lead == with16 + 1) return number(lead == with16 ? 2 : 4);
    demand((lead & 0xf0) == fixed);
    return lead & 0x0f;
  }

  std::string_view rest_;
};

class RouterView {
 public:
  // Throws std::logic_error if an event contradicts those before it.
  void apply(std::string_view payload) {
    MsgpackReader in(payload);
    demand(in.array() == 3, "a payload is time, events, rank");
    in.real();
    for (std::size_t events = in.array(); events > 0; --events) apply_event(in);
    (void)in.integer_or_nil();
    demand(in.at_end(), "a payload ends with the rank");
  }

  [[nodiscard]] std::size_t blocks() const { return blocks_.size(); }
  [[nodiscard]] bool knows_the_same(const RouterView& other) const {
    return blocks_ == other.blocks_;
  }
  [[nodiscard]] std::uint64_t removed() const { return removed_; }  // one by one, so far

 private:
  using Block = std::pair<std::string, std::int64_t>;  // medium, hash
  using Parent = std::optional<std::int64_t>;

  static void demand(bool holds, const char* what) {
    if (!holds) throw std::logic_error(std::string("router: ") + what);
  }

  void apply_event(MsgpackReader& in) {
    std::string type, medium;
    std::vector<std::int64_t> hashes;
    std::optional<std::int64_t> parent;
    std::size_t tokens = 0;
    std::int64_t block_size = 0;
    for (std::size_t keys = in.map(); keys > 0; --keys) {
      const std::string_view key = in.text();
      if (key == "type") {
        type = in.text();
      } else if (key == "medium") {
        medium = in.text();
      } else if (key == "parent_block_hash") {
        parent = in.integer_or_nil();
      } else if (key == "block_size") {
        block_size = in.integer_or_nil().value();
      } else if (key == "token_ids") {
        for (std::size_t left = tokens = in.array(); left > 0; --left) (void)in.integer_or_nil();
      } else if (key == "block_hashes") {
        for (std::size_t left = in.array(); left > 0; --left) {
          hashes.push_back(in.integer_or_nil().value());
        }
      } else {
        demand(key == "cache_salt", "an event has the known keys");
        (void)in.text();
      }
    }
    if (type == "AllBlocksCleared") {
      blocks_.clear();
    } else if (type == "BlockStored") {
      // What is evicted from the device goes leaves first, so in the host tier a parent comes
      // later.
      demand(!parent || medium != "GPU" || blocks_.contains({medium, *parent}),
             "a block's parent was stored before");
      demand(tokens == hashes.size() * static_cast<std::size_t>(block_size), "blocks are full");
      for (const auto hash : hashes) {
        demand(blocks_.emplace(Block{medium, hash}, parent).second, "a block is stored once");
        parent = hash;
      }
    } else {
      demand(type == "BlockRemoved", "an event has a known type");
      for (const auto hash : hashes) {
        demand(blocks_.erase({medium, hash}) == 1, "what is removed was stored");
        ++removed_;
      }
    }
  }

  std::map<Block, Parent> blocks_;
  std::uint64_t removed_ = 0;
};

}  // namespace spec
