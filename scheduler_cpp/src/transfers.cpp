// SPDX-License-Identifier: MIT
#include "ts/transfers.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace ts {
namespace {

// Between the tiers, and no row of its plan waits for it.
bool runs_beside_steps(const Transfer& transfer) {
  if (const auto* load = std::get_if<Load>(&transfer)) return !load->receives();
  const auto* stores = std::get_if<Stores>(&transfer);
  return stores != nullptr && stores->kind == TransferKind::kDisplace;
}

}  // namespace

TransferId Transfers::begin(Load&& load) {
  const TransferId id = clock_.begin();
  loads_.emplace_back(id, std::move(load));
  return id;
}

TransferId Transfers::begin(Send&& send) {
  const TransferId id = clock_.begin();
  sends_.emplace_back(id, std::move(send));
  return id;
}

void Transfers::displace(std::vector<WriteBack>&& pages) {
  std::ranges::move(pages, std::back_inserter(displaced_));
}

// First what is evicted is stored, before it is written over.
void Transfers::emit(std::vector<WriteBack>&& stores, const HostTier& host, Plan& plan) {
  emit(std::move(stores), TransferKind::kStore, plan);
  emit(std::exchange(displaced_, {}), TransferKind::kDisplace, plan);
  for (auto& [id, load] : loads_) {
    plan.transfer_device_page.append(load.device_pages);
    for (std::size_t i = 0; i < load.device_pages.size(); ++i) {
      plan.transfer_host_page.push(load.receives() ? kNoPage : host.page(load.blocks[i]));
    }
    emit(id, load.receives() ? TransferKind::kReceive : TransferKind::kLoad, load.request, plan);
    beside_steps_ += load.receives() ? 0 : 1;
    under_way_.emplace(id, std::move(load));
  }
  loads_.clear();
  for (auto& [id, send] : sends_) {
    plan.transfer_device_page.append(send.device_pages);
    for (std::size_t i = 0; i < send.device_pages.size(); ++i) {
      plan.transfer_host_page.push(kNoPage);
    }
    emit(id, TransferKind::kSend, send.request, plan);
    under_way_.emplace(id, std::move(send));
  }
  sends_.clear();
}

void Transfers::emit(std::vector<WriteBack>&& stores, TransferKind kind, Plan& plan) {
  if (stores.empty()) return;
  for (const WriteBack& store : stores) {
    plan.transfer_device_page.push(store.device_page);
    plan.transfer_host_page.push(store.host_page.id());
  }
  const TransferId id = clock_.begin();
  emit(id, kind, kNobody, plan);
  beside_steps_ += kind == TransferKind::kDisplace ? 1 : 0;
  under_way_.emplace(id, Stores{{std::move(stores), id}, kind});
}

void Transfers::emit(TransferId id, TransferKind kind, RequestId request, Plan& plan) {
  plan.transfer_id.push(id.number());
  plan.transfer_request.push(request);
  plan.transfer_kind.push(static_cast<std::uint8_t>(kind));
  plan.transfer_offset.push(static_cast<std::int32_t>(plan.transfer_device_page.size()));
}

Transfers::Ended Transfers::end(TransferId id) {
  auto ended = under_way_.extract(id);
  beside_steps_ -= runs_beside_steps(ended.mapped()) ? 1 : 0;
  return {std::move(ended.mapped()), clock_.end(id)};
}

void Transfers::name_no_more() {
  for (auto& [id, send] : sends_) under_way_.emplace(id, std::move(send));
  sends_.clear();
}

std::vector<std::uint64_t> Transfers::overdue(double now, double timeout) {
  now_ = now;
  std::vector<std::uint64_t> overdue;
  if (timeout <= 0) return overdue;
  for (auto& [id, transfer] : under_way_) {
    std::optional<double>* since = nullptr;
    if (auto* send = std::get_if<Send>(&transfer)) since = &send->since;
    if (auto* load = std::get_if<Load>(&transfer); load != nullptr && load->receives()) {
      since = &load->since;
    }
    if (since == nullptr) continue;  // with the host tier: no peer can fail it
    if (!*since) *since = now;
    if (now - **since >= timeout) overdue.push_back(id.number());
  }
  return overdue;
}

void Transfers::check() const {
  const auto demand = [](bool holds, const char* invariant) {
    if (!holds) throw std::logic_error(invariant);
  };
  for (const auto& [id, transfer] : under_way_) {
    demand(clock_.under_way().contains(id), "a transfer is under way until it ends");
  }
  demand(loads_.empty() && displaced_.empty(), "what a plan begins, it names");
  demand(under_way_.size() + sends_.size() == clock_.under_way().size(), "every transfer is known");
  const auto beside = std::ranges::count_if(
      under_way_, [](const auto& entry) { return runs_beside_steps(entry.second); });
  demand(beside == beside_steps_, "every transfer beside the steps is counted");
}

}  // namespace ts
