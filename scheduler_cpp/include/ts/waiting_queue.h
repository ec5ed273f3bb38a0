// SPDX-License-Identifier: MIT
// Requests that hold nothing of the device, in service order.
#pragma once

#include <map>
#include <utility>
#include <variant>

#include "ts/lifecycle.h"
#include "ts/request.h"

namespace ts {

class WaitingQueue {
 public:
  using Entry = std::variant<Waiting, Retracted>;
  using Iterator = std::map<ServiceOrder, Entry>::iterator;

  void push(Waiting&& state) { push_any(std::move(state)); }
  void push(Retracted&& state) { push_any(std::move(state)); }

  [[nodiscard]] static Request& request(Iterator at) {
    return std::visit([](auto& state) -> Request& { return state.request(); }, at->second);
  }

  // Takes the entry out; `at` then points behind it.
  [[nodiscard]] Entry take(Iterator& at) {
    auto node = entries_.extract(at++);
    return std::move(node.mapped());
  }

  [[nodiscard]] Iterator find(ServiceOrder order) { return entries_.find(order); }
  [[nodiscard]] Iterator begin() { return entries_.begin(); }
  [[nodiscard]] Iterator end() { return entries_.end(); }
  template <class See>
  void each(See see) const {
    for (const auto& [order, entry] : entries_) {
      std::visit([&see](const auto& state) { see(state.request()); }, entry);
    }
  }
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  template <class State>
  void push_any(State&& state) {
    const ServiceOrder order = state.request().order;
    entries_.emplace(order, std::forward<State>(state));
  }

  std::map<ServiceOrder, Entry> entries_;
};

}  // namespace ts
