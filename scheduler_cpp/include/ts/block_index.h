// SPDX-License-Identifier: MIT
// What content there is: one block for each full page of tokens that some tier or group holds,
// found by its content.
//
// A block is keyed by the hash of its tokens chained with its parent's, and it is found only if the
// parent is the block found before (or, for a first one, the salt is the same) and the tokens are
// equal. By induction the whole prefix is equal, whatever the hashes do.
//
// A block lives as long as somebody holds it: each place that has a page of it, and each child.
// A block without a page of its own can thus stand between two that have one.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ts/content_hash.h"
#include "ts/salt.h"
#include "ts/types.h"

namespace ts {

class BlockIndex {
 public:
  // `hash_mask` narrows the hash so that tests can provoke collisions.
  BlockIndex(std::int32_t expected_blocks, std::int32_t page_size, SaltTable& salts,
             ContentHash hash_mask);

  // The hash of a page's content behind `parent` (kNoBlock: first page), known or not.
  [[nodiscard]] ContentHash chained_hash(const SaltRef& salt, BlockId parent,
                                         std::span<const Token> tokens) const {
    return hash_page(parent == kNoBlock ? salt.root_hash() : block(parent).hash, tokens) &
           hash_mask_;
  }

  [[nodiscard]] ContentHash chained_hash(ContentHash parent, std::span<const Token> tokens) const {
    return hash_page(parent, tokens) & hash_mask_;
  }

  // The only block of this hash, whatever its content; kNoBlock if there is none.
  [[nodiscard]] BlockId named(ContentHash hash) const;
  // Is this its content?
  [[nodiscard]] bool is(BlockId id, BlockId parent, SaltId salt,
                        std::span<const Token> tokens) const;
  // The block of this hash and content; kNoBlock if there is none.
  [[nodiscard]] BlockId find(ContentHash hash, BlockId parent, SaltId salt,
                             std::span<const Token> tokens) const;

  // What named(hash) will read first, and what is read next: fetched while others are looked up.
  void prefetch_bucket(ContentHash hash) const {
    __builtin_prefetch(&buckets_[hash & bucket_mask_], 1);
  }
  // The block that named(hash) will look at first.
  [[nodiscard]] BlockId prefetch_block(ContentHash hash) const {
    const BlockId id = buckets_[hash & bucket_mask_];
    if (id == kNoBlock) return id;
    __builtin_prefetch(&block(id), 1);
    __builtin_prefetch(tokens(id).data());
    return id;
  }

  // A block that nobody holds yet. Precondition: named(hash) == kNoBlock.
  // `expanded`: how the page was computed (forms.h).
  [[nodiscard]] BlockId add(ContentHash hash, BlockId parent, const SaltRef& salt,
                            std::span<const Token> tokens, std::int32_t expanded);
  void hold(BlockId id) { ++block(id).holders; }
  // The last one to let go removes the block, and its ancestors that nobody else holds.
  void let_go(BlockId id);

  // Nobody finds the block, nor what continues it, from now on; those that still live do so only as
  // long as somebody holds them, and others may be added with their content. Returns which.
  std::vector<BlockId> withdraw(BlockId first);
  [[nodiscard]] bool withdrawn(BlockId id) const { return block(id).next_in_bucket == kWithdrawn; }

  [[nodiscard]] ContentHash hash(BlockId id) const { return block(id).hash; }
  [[nodiscard]] BlockId parent(BlockId id) const { return block(id).parent; }
  [[nodiscard]] std::int32_t expanded(BlockId id) const { return block(id).expanded; }
  [[nodiscard]] std::int32_t holders(BlockId id) const { return block(id).holders; }
  [[nodiscard]] const std::string& salt(BlockId id) const { return salts_.bytes(block(id).salt); }
  [[nodiscard]] std::span<const Token> tokens(BlockId id) const;
  // Ids are smaller than this.
  [[nodiscard]] std::size_t capacity() const { return blocks_.size(); }
  [[nodiscard]] std::size_t size() const { return blocks_.size() - unused_.size(); }

  // Throws std::logic_error naming the first violated invariant, for tests.
  void check() const;

 private:
  struct Block {
    ContentHash hash = 0;
    BlockId parent = kNoBlock;
    BlockId next_in_bucket = kNoBlock;
    SaltId salt = 0;
    std::int32_t holders = kUnused;
    std::int32_t expanded = 0;
  };
  static constexpr std::int32_t kUnused = -1;
  static constexpr BlockId kWithdrawn = -2;  // in no bucket

  [[nodiscard]] Block& block(BlockId id) { return blocks_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] const Block& block(BlockId id) const {
    return blocks_[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] BlockId& bucket(ContentHash hash) { return buckets_[hash & bucket_mask_]; }
  void remove(BlockId id);
  void leave_bucket(BlockId id);
  void grow();

  std::int32_t page_size_;
  SaltTable& salts_;
  ContentHash hash_mask_;
  std::uint64_t bucket_mask_;
  std::vector<Block> blocks_;
  std::vector<BlockId> unused_;
  std::vector<BlockId> buckets_;
  std::vector<Token> tokens_;  // [blocks, page_size]
};

}  // namespace ts
