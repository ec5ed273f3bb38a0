// SPDX-License-Identifier: MIT
// A plan, what one step does, and an output, what it yielded: structs of arrays in buffers that
// are allocated once. docs/architecture.md gives each field's meaning.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ts/check.h"
#include "ts/config.h"
#include "ts/types.h"

namespace ts {

// A fixed-capacity array; memory that is never written is never resident.
template <class T>
class Column {
 public:
  explicit Column(std::size_t capacity)
      : data_(std::make_unique_for_overwrite<T[]>(capacity)), capacity_(capacity) {}

  void clear() { size_ = 0; }
  void push(T value) {
    TS_ASSERT(size_ < capacity_);
    data_[size_++] = value;
  }
  void append(std::span<const T> values) {
    TS_ASSERT(size_ + values.size() <= capacity_);
    std::copy(values.begin(), values.end(), data_.get() + size_);
    size_ += values.size();
  }
  [[nodiscard]] T* data() { return data_.get(); }
  [[nodiscard]] const T* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }
  [[nodiscard]] const T& back() const { return data_[size_ - 1]; }
  [[nodiscard]] const T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::unique_ptr<T[]> data_;
  std::size_t capacity_;
  std::size_t size_ = 0;
};

struct PagePatch {
  std::int32_t slot;
  std::int32_t column;
  std::int32_t page;
};

inline constexpr RequestId kNobody = ~RequestId{0};

enum class TransferKind : std::uint8_t {
  kStore = 0,     // device to host, before the plan's rows write
  kLoad = 1,      // host to device, after what the plan displaces
  kSend = 2,      // device to a peer
  kReceive = 3,   // a peer to device, after what the plan displaces
  kDisplace = 4,  // device to host, before the plan's loads and receives write; no row does
};

struct Plan {
  explicit Plan(const SchedulerConfig& config);

  std::uint64_t step = 0;
  std::int32_t num_absorbed_rows = 0;
  std::int32_t num_tokens = 0;
  Column<std::int32_t> row_slot, row_start, row_tokens;
  Column<std::uint8_t> row_samples;
  Column<std::int32_t> admitted_slot;
  Column<std::uint64_t> admitted_request;
  Column<std::int32_t> admitted_offset, admitted_prompt_tokens, admitted_tokens;
  Column<std::byte> admitted_params;
  Column<PagePatch> page_patch;
  std::vector<Column<PagePatch>> group_page_patch;  // of further cache groups
  Column<std::uint64_t> transfer_id;
  Column<std::uint64_t> transfer_request;  // whose pages; kNobody: a store's are nobody's
  Column<std::uint8_t> transfer_kind;      // TransferKind
  Column<std::int32_t> transfer_offset, transfer_device_page, transfer_host_page;

  void clear();

  // What the device reads of the plan, as one piece of memory to be uploaded in one go: a header of
  // kArenaHeader words, then the arrays, each behind the other, all int32. The header's words are
  // docs/architecture.md's "arena". Writes fewer than arena_words() words; returns how many.
  std::size_t pack(std::span<std::int32_t> arena) const;
  [[nodiscard]] std::size_t arena_words() const;
};

inline constexpr std::size_t kArenaHeader = 16;

struct Output {
  explicit Output(const SchedulerConfig& config);

  Column<std::uint64_t> request;
  Column<std::int32_t> token, row;
  Column<std::uint8_t> finish;
  Column<std::int32_t> cached_tokens;

  void clear();
};

}  // namespace ts
