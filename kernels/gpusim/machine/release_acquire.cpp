// SPDX-License-Identifier: MIT
#include "release_acquire.h"

#include <algorithm>

#include "happens_before.h"

namespace gpusim {
namespace {

constexpr const char* kNoFence = "relaxed, and no fence has followed";
constexpr std::size_t kMostExplanations = 4096;

Whereabouts whereabouts(const Agent& agent) {
  return {.cluster = agent.cluster, .cta = agent.cta};
}

Elsewhere told_by(const Agent& agent) {
  Elsewhere knows = agent.knows.elsewhere;
  knows.add(agent.cluster,
            {.all = std::make_shared<const VectorClock>(agent.knows.all),
             .fenced = std::make_shared<const VectorClock>(agent.knows.fenced_global)});
  return knows;
}

void learn(Agent& agent, const Elsewhere& knows) {
  if (const Elsewhere::Known* own = knows.of(agent.cluster)) {
    agent.knows.all.join(*own->all);
    agent.knows.fenced_global.join(*own->fenced);
  }
  agent.knows.elsewhere.join(knows);
}

bool reaches(const Message& message, Whereabouts reader, Scope scope) {
  if (!message.from) return message.scope >= Scope::kGpu && scope >= Scope::kGpu;
  return includes(message.scope, *message.from, reader) && includes(scope, reader, *message.from);
}

}  // namespace

bool includes(Scope scope, Whereabouts around, Whereabouts other) {
  switch (scope) {
    case Scope::kCta:
      return around == other;
    case Scope::kCluster:
      return around.cluster == other.cluster;
    default:
      return true;
  }
}

bool Mailboxes::has_room(std::uint64_t at, const Message& message) const {
  return message.released || boxes_.size() < kMostExplanations || boxes_.contains(at);
}

void Mailboxes::write(std::uint64_t at, const Message& message) {
  if (has_room(at, message)) boxes_[at] = {message};
}

void Mailboxes::update(std::uint64_t at, const Message& message) {
  if (!has_room(at, message)) return;
  std::vector<Message>& box = boxes_[at];
  for (Message& old : box) {
    if (old.released != message.released) continue;
    const bool both_wide = old.scope >= Scope::kGpu && message.scope >= Scope::kGpu;
    if (!both_wide && (old.scope != message.scope || old.from != message.from)) continue;
    old.knows.join(message.knows);
    if (old.from != message.from) old.from.reset();
    return;
  }
  box.push_back(message);
}

const std::vector<Message>& Mailboxes::at(std::uint64_t at) const {
  static const std::vector<Message> kNone;
  const auto found = boxes_.find(at);
  return found == boxes_.end() ? kNone : found->second;
}

void Correspondence::fence(Strength strength) {
  if (acquires(strength.order)) {
    for (const Message& message : seen_) {
      if (reaches(message, whereabouts(*acting), strength.scope)) {
        learn(*acting, message.knows);
      } else {
        missed_->add(this, message, "the scope of the fence that followed is too narrow");
      }
    }
    seen_.clear();
    missed_->remove(this, kNoFence);
  }
  if (!releases(strength.order)) return;
  fenced_ = {.knows = told_by(*acting), .scope = strength.scope, .from = whereabouts(*acting)};
  acting->tick();
}

void Correspondence::read(const std::vector<Message>& messages, Strength strength) {
  const Whereabouts reader = whereabouts(*acting);
  for (const Message& message : messages) {
    if (message.from == reader && !message.released) continue;
    if (!message.released) {
      missed_->add(this, message, "the flag was written relaxed, with no fence before it");
    } else if (!reaches(message, reader, strength.scope)) {
      missed_->add(this, message, "the scope of the flag's write or read is too narrow");
    } else if (acquires(strength.order)) {
      learn(*acting, message.knows);
    } else {
      missed_->add(this, message, kNoFence);
      const auto same = [&](const Message& other) {
        return other.scope == message.scope && other.from == message.from;
      };
      const auto old = std::ranges::find_if(seen_, same);
      if (old == seen_.end()) {
        seen_.push_back(message);
      } else {
        old->knows.join(message.knows);
      }
    }
  }
}

Message Correspondence::message(Strength strength) {
  if (releases(strength.order)) {
    return {.knows = told_by(*acting), .scope = strength.scope, .from = whereabouts(*acting)};
  }
  if (fenced_) {
    Message message = *fenced_;
    message.scope = std::min(message.scope, strength.scope);
    return message;
  }
  if (!unreleased_ || unreleased_at_ != acting->now.clock) {
    unreleased_ = {.knows = told_by(*acting), .from = whereabouts(*acting), .released = false};
    unreleased_at_ = acting->now.clock;
  }
  unreleased_->scope = strength.scope;
  return *unreleased_;
}

void Misunderstandings::add(const void* reader, const Message& message, const char* why) {
  for (Missed& missed : missed_) {
    if (missed.reader != reader || missed.why != why) continue;
    missed.message.knows.join(message.knows);
    return;
  }
  missed_.push_back({reader, message, why});
}

void Misunderstandings::remove(const void* reader, const char* why) {
  std::erase_if(missed_,
                [&](const Missed& missed) { return missed.reader == reader && missed.why == why; });
}

std::string Misunderstandings::why_not(std::uint32_t cluster, const Epoch& epoch) const {
  for (const Missed& missed : missed_) {
    if (missed.message.knows.covers(cluster, epoch)) {
      return std::string("its CTA has read a flag that was written after, but ") + missed.why;
    }
  }
  return "";
}

}  // namespace gpusim
