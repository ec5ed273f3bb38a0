// SPDX-License-Identifier: MIT
// Salts: requests share cached pages only under the same salt (tenant, adapter). A salt is
// interned once, so that comparing two is comparing two small integers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ts/check.h"
#include "ts/content_hash.h"

namespace ts {

using SaltId = std::uint32_t;

class SaltTable;

// A counted reference to an interned salt.
class SaltRef {
 public:
  SaltRef(SaltRef&& other) noexcept
      : table_(std::exchange(other.table_, nullptr)), id_(other.id_) {}
  SaltRef& operator=(SaltRef&&) = delete;
  SaltRef(const SaltRef&) = delete;
  SaltRef& operator=(const SaltRef&) = delete;
  inline ~SaltRef();

  [[nodiscard]] SaltId id() const { return id_; }
  [[nodiscard]] inline ContentHash root_hash() const;
  [[nodiscard]] inline const std::string& bytes() const;

 private:
  friend class SaltTable;
  SaltRef(SaltTable* table, SaltId id) : table_(table), id_(id) {}

  SaltTable* table_;
  SaltId id_;
};

// Must outlive its references.
class SaltTable {
 public:
  [[nodiscard]] SaltRef intern(std::string_view salt) {
    const auto found = ids_.find(std::string(salt));
    if (found != ids_.end()) {
      ++entries_[found->second].references;
      return {this, found->second};
    }
    SaltId id = static_cast<SaltId>(entries_.size());
    if (unused_.empty()) {
      entries_.emplace_back();
    } else {
      id = unused_.back();
      unused_.pop_back();
    }
    entries_[id] = {std::string(salt), hash_salt(salt), 1};
    ids_.emplace(std::string(salt), id);
    return {this, id};
  }

  [[nodiscard]] std::size_t size() const { return ids_.size(); }
  [[nodiscard]] const std::string& bytes(SaltId id) const { return entries_[id].bytes; }

 private:
  friend class SaltRef;
  friend class BlockIndex;  // a block without parent holds its salt

  struct Entry {
    std::string bytes;
    ContentHash root_hash = 0;
    std::int64_t references = 0;
  };

  void retain(SaltId id) { ++entries_[id].references; }

  void drop(SaltId id) {
    TS_ASSERT(entries_[id].references > 0);
    if (--entries_[id].references > 0) return;
    ids_.erase(entries_[id].bytes);
    entries_[id].bytes.clear();
    unused_.push_back(id);
  }

  std::vector<Entry> entries_;
  std::vector<SaltId> unused_;
  std::unordered_map<std::string, SaltId> ids_;
};

SaltRef::~SaltRef() {
  if (table_ != nullptr) table_->drop(id_);
}
ContentHash SaltRef::root_hash() const {
  return table_->entries_[id_].root_hash;
}
const std::string& SaltRef::bytes() const {
  return table_->entries_[id_].bytes;
}

}  // namespace ts
