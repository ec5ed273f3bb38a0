// SPDX-License-Identifier: MIT
#include "recorder_module.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/set.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "recorder.h"

namespace nb = nanobind;

namespace gpusim {
namespace {

using RateTuple = std::tuple<std::uint64_t, Cycle>;  // amount for a cycle, latency

Rate rate(const RateTuple& of) {
  return {.amount = std::get<0>(of), .latency = std::get<1>(of)};
}

void construct(Recorder* at, const std::array<Cycle, kWorks>& pipe_cycles,
               const std::array<RateTuple, 4>& memories,
               const std::array<RateTuple, kEngines>& engines, std::set<std::uint64_t> drawn,
               std::size_t spans) {
  CostModel model{.pipe_cycles = pipe_cycles,
                  .shared = rate(memories[0]),
                  .distributed = rate(memories[1]),
                  .global = rate(memories[2]),
                  .tensor_memory = rate(memories[3])};
  for (std::size_t i = 0; i < kEngines; ++i) model.engines[i] = rate(engines[i]);
  new (at) Recorder(model, std::move(drawn), spans);
}

nb::list spans_of(const Timeline& timeline) {
  nb::list spans;
  for (const Span& span : timeline.spans()) {
    spans.append(nb::make_tuple(span.begin, span.end, static_cast<int>(span.activity), span.pc,
                                span.cause, span.barrier, span.waited, span.pieces));
  }
  return spans;
}

nb::list operations_of(const CtaRecord::EngineRecord& engine) {
  nb::list operations;
  for (const Operation& done : engine.operations) {
    operations.append(nb::make_tuple(done.issued, done.begin, done.free, done.end, done.pc,
                                     done.warp, done.amount, done.operations));
  }
  return operations;
}

// (index, rank, begin, end, busy cycles of engines, whether drawn, spans by warp, operations by
// engine)
nb::list ctas(const Recorder& recorder) {
  nb::list all;
  for (const auto& cta : recorder.ctas()) {
    nb::list busy;
    nb::list warps;
    nb::list engines;
    for (const auto& engine : cta->engines) {
      busy.append(engine.busy);
      if (cta->drawn) engines.append(operations_of(engine));
    }
    if (cta->drawn) {
      for (const auto& warp : cta->warps) warps.append(spans_of(warp.timeline));
    }
    all.append(nb::make_tuple(cta->index, cta->rank, cta->begin, cta->end, busy, cta->drawn, warps,
                              engines));
  }
  return all;
}

// (executions by instruction, busy cycles by Work) of each warp.
nb::list warps(const Recorder& recorder) {
  nb::list all;
  for (const WarpTotals& warp : recorder.warps()) {
    all.append(nb::make_tuple(warp.executed, warp.busy));
  }
  return all;
}

// (warp, instruction, that which ended it, barrier, times, cycles, longest)
nb::list waits(const Recorder& recorder) {
  nb::list all;
  for (const auto& [key, totals] : recorder.waits()) {
    all.append(nb::make_tuple(key.warp, key.pc, key.cause, key.barrier, totals.times, totals.cycles,
                              totals.longest));
  }
  return all;
}

}  // namespace

void add_recorder(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<Recorder>(module, "Recorder")
      .def("__init__", &construct, "pipe_cycles"_a, "memories"_a, "engines"_a, "drawn"_a, "spans"_a)
      .def("ctas", &ctas)
      .def("warps", &warps)
      .def("waits", &waits);
}

}  // namespace gpusim
