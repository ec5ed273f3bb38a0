// SPDX-License-Identifier: MIT
#include "ts/block_index.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>

#include "ts/check.h"

namespace ts {

BlockIndex::BlockIndex(std::int32_t expected_blocks, std::int32_t page_size, SaltTable& salts,
                       ContentHash hash_mask)
    : page_size_(page_size),
      salts_(salts),
      hash_mask_(hash_mask),
      bucket_mask_(std::bit_ceil(static_cast<std::uint64_t>(expected_blocks) * 2) - 1),
      blocks_(static_cast<std::size_t>(expected_blocks)),
      buckets_(bucket_mask_ + 1, kNoBlock),
      tokens_(static_cast<std::size_t>(expected_blocks) * static_cast<std::size_t>(page_size)) {
  unused_.reserve(blocks_.size());
  for (BlockId id = expected_blocks - 1; id >= 0; --id) unused_.push_back(id);
}

std::span<const Token> BlockIndex::tokens(BlockId id) const {
  const auto size = static_cast<std::size_t>(page_size_);
  return {tokens_.data() + static_cast<std::size_t>(id) * size, size};
}

BlockId BlockIndex::named(ContentHash hash) const {
  BlockId id = buckets_[hash & bucket_mask_];
  while (id != kNoBlock && block(id).hash != hash) id = block(id).next_in_bucket;
  return id;
}

bool BlockIndex::is(BlockId id, BlockId parent, SaltId salt, std::span<const Token> content) const {
  return block(id).parent == parent && block(id).salt == salt &&
         std::ranges::equal(tokens(id), content);
}

BlockId BlockIndex::find(ContentHash hash, BlockId parent, SaltId salt,
                         std::span<const Token> content) const {
  const BlockId id = named(hash);
  return id != kNoBlock && is(id, parent, salt, content) ? id : kNoBlock;
}

BlockId BlockIndex::add(ContentHash hash, BlockId parent, const SaltRef& salt,
                        std::span<const Token> content, std::int32_t expanded) {
  TS_ASSERT(content.size() == static_cast<std::size_t>(page_size_));
  if (unused_.empty()) grow();
  const BlockId id = unused_.back();
  unused_.pop_back();
  block(id) = {.hash = hash,
               .parent = parent,
               .next_in_bucket = bucket(hash),
               .salt = salt.id(),
               .holders = 0,
               .expanded = expanded};
  bucket(hash) = id;
  std::ranges::copy(content, tokens_.begin() + static_cast<std::ptrdiff_t>(id) * page_size_);
  if (parent == kNoBlock) {
    salts_.retain(salt.id());
  } else {
    hold(parent);
  }
  return id;
}

void BlockIndex::let_go(BlockId id) {
  while (id != kNoBlock) {
    TS_ASSERT(block(id).holders > 0);
    if (--block(id).holders > 0) return;
    const BlockId parent = block(id).parent;
    remove(id);
    id = parent;
  }
}

std::vector<BlockId> BlockIndex::withdraw(BlockId first) {
  enum class Continues : std::uint8_t { kUnknown, kNo, kYes };
  std::vector<Continues> continues(blocks_.size(), Continues::kUnknown);
  const auto known = [&continues](BlockId id) -> Continues& {
    return continues[static_cast<std::size_t>(id)];
  };
  known(first) = Continues::kYes;
  std::vector<BlockId> withdrawn_now;
  for (BlockId id = 0; id < static_cast<BlockId>(blocks_.size()); ++id) {
    if (block(id).holders == kUnused) continue;
    BlockId ancestor = id;
    while (ancestor != kNoBlock && known(ancestor) == Continues::kUnknown) {
      ancestor = block(ancestor).parent;
    }
    const Continues answer = ancestor == kNoBlock ? Continues::kNo : known(ancestor);
    for (BlockId at = id; at != ancestor; at = block(at).parent) known(at) = answer;
    if (answer == Continues::kNo || withdrawn(id)) continue;
    leave_bucket(id);
    block(id).next_in_bucket = kWithdrawn;
    withdrawn_now.push_back(id);
  }
  return withdrawn_now;
}

void BlockIndex::leave_bucket(BlockId id) {
  BlockId* link = &bucket(block(id).hash);
  while (*link != id) link = &block(*link).next_in_bucket;
  *link = block(id).next_in_bucket;
}

void BlockIndex::remove(BlockId id) {
  if (!withdrawn(id)) leave_bucket(id);
  if (block(id).parent == kNoBlock) salts_.drop(block(id).salt);
  block(id) = Block{};
  unused_.push_back(id);
}

// Only blocks that have no page, and stand between two that have one, make it larger than expected.
void BlockIndex::grow() {
  const std::size_t before = blocks_.size();
  blocks_.resize(before + std::max<std::size_t>(before / 2, 16));
  tokens_.resize(blocks_.size() * static_cast<std::size_t>(page_size_));
  for (std::size_t id = blocks_.size(); id > before; --id) {
    unused_.push_back(static_cast<BlockId>(id - 1));
  }
}

void BlockIndex::check() const {
  const auto demand = [](bool holds, const char* invariant) {
    if (!holds) throw std::logic_error(std::string("blocks: ") + invariant);
  };
  std::size_t used = 0;
  std::vector<std::int32_t> children(blocks_.size(), 0);
  for (BlockId id = 0; id < static_cast<BlockId>(blocks_.size()); ++id) {
    const Block& entry = block(id);
    if (entry.holders == kUnused) continue;
    ++used;
    demand(entry.holders > 0, "somebody holds every block");
    const bool found = find(entry.hash, entry.parent, entry.salt, tokens(id)) == id;
    demand(found != withdrawn(id), "a block is found by its content, unless it is withdrawn");
    if (entry.parent == kNoBlock) continue;
    ++children[static_cast<std::size_t>(entry.parent)];
    demand(withdrawn(id) || !withdrawn(entry.parent), "nothing that is found has a lost ancestor");
  }
  for (std::size_t id = 0; id < blocks_.size(); ++id) {
    demand(children[id] <= std::max(0, blocks_[id].holders), "a child holds its parent");
  }
  demand(used == size(), "every block is used or unused");
}

}  // namespace ts
