// SPDX-License-Identifier: MIT
// The Python module ts_gpusim._machine: programs are built instruction by instruction and launched.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "cluster.h"
#include "recorder_module.h"

namespace nb = nanobind;

namespace gpusim {
namespace {

Dim dim(const std::array<std::uint32_t, 3>& of) {
  return {.x = of[0], .y = of[1], .z = of[2]};
}

void add(Program& program, const std::string& handler,
         const std::vector<std::tuple<std::int32_t, std::int64_t>>& operands,
         std::int64_t modifiers, std::int32_t guard, bool guard_negated, std::uint32_t target,
         bool meets, std::uint8_t work, std::string text,
         const std::vector<std::tuple<std::uint32_t, int>>& uses) {
  const auto found = handlers().find(handler);
  if (found == handlers().end()) throw nb::key_error(handler.c_str());
  program.ops.push_back({.run = found->second,
                         .guard = guard,
                         .guard_negated = guard_negated,
                         .first = static_cast<std::uint32_t>(program.operands.size()),
                         .count = static_cast<std::uint32_t>(operands.size()),
                         .modifiers = modifiers,
                         .target = target,
                         .meets = meets,
                         .work = static_cast<Work>(work),
                         .first_use = static_cast<std::uint32_t>(program.uses.size()),
                         .uses = static_cast<std::uint32_t>(uses.size())});
  for (const auto& [watched, use] : uses) program.uses.push_back({watched, static_cast<Use>(use)});
  for (const auto& [at, offset] : operands) program.operands.push_back({at, offset});
  program.texts.push_back(std::move(text));
}

void finish(Program& program, const nb::bytes& registers,
            const std::vector<std::tuple<std::int32_t, std::string>>& specials,
            std::size_t static_shared_bytes, std::size_t local_bytes, std::int32_t local_base,
            std::vector<std::string> watched,
            const std::vector<std::tuple<std::uint64_t, std::uint32_t>>& functions,
            std::uint32_t most_registers) {
  program.most_registers = most_registers;
  for (const auto& [address, first] : functions) program.functions[address] = first;
  program.watched = std::move(watched);
  program.registers.resize(registers.size());
  std::memcpy(program.registers.data(), registers.c_str(), registers.size());
  for (const auto& [at, name] : specials) program.specials.push_back({at, name});
  program.static_shared_bytes = static_shared_bytes;
  program.local_bytes = local_bytes;
  program.local_base = local_base;
  find_changed(program);
}

nb::dict as_dict(const Counters& counters) {
  nb::dict result;
  result["instructions"] = counters.instructions;
  result["global_loaded"] = counters.global_loaded;
  result["global_stored"] = counters.global_stored;
  result["global_atomic"] = counters.global_atomic;
  result["global_copied_in"] = counters.global_copied_in;
  result["global_copied_out"] = counters.global_copied_out;
  result["shared_loaded"] = counters.shared_loaded;
  result["shared_stored"] = counters.shared_stored;
  result["shared_atomic"] = counters.shared_atomic;
  result["shared_copied_in"] = counters.shared_copied_in;
  result["shared_copied_out"] = counters.shared_copied_out;
  result["shared_mma"] = counters.shared_mma;
  result["distributed_loaded"] = counters.distributed_loaded;
  result["distributed_stored"] = counters.distributed_stored;
  result["distributed_atomic"] = counters.distributed_atomic;
  result["distributed_copied"] = counters.distributed_copied;
  result["tensor_loaded"] = counters.tensor_loaded;
  result["tensor_stored"] = counters.tensor_stored;
  result["tensor_copied_in"] = counters.tensor_copied_in;
  result["tensor_mma_read"] = counters.tensor_mma_read;
  result["tensor_mma_written"] = counters.tensor_mma_written;
  result["tma_requests"] = counters.tma_requests;
  nb::dict kinds;
  for (const auto& [kind, count] : counters.mma) {
    kinds[kind.c_str()] = nb::make_tuple(count.instructions, count.flops);
  }
  result["mma"] = kinds;
  return result;
}

nb::list listed(const std::vector<Finding>& findings) {
  nb::list list;
  for (const Finding& finding : findings) {
    list.append(nb::make_tuple(finding.kind, finding.sentence, finding.times, finding.history));
  }
  return list;
}

nb::dict launch(
    const Program& program, const std::array<std::uint32_t, 3>& grid,
    const std::array<std::uint32_t, 3>& block, const std::array<std::uint32_t, 3>& cluster,
    std::size_t dynamic_shared_bytes, std::uint64_t parameters,
    const std::vector<std::tuple<std::string, std::uint64_t, std::uint64_t>>& allocations,
    std::uint64_t seed, std::uint64_t resident, Recorder* recorder, bool observe,
    std::int64_t muted) {
  const LaunchShape shape{.grid = dim(grid),
                          .block = dim(block),
                          .cluster = dim(cluster),
                          .dynamic_shared_bytes = dynamic_shared_bytes,
                          .resident = resident};
  std::vector<Allocation> known;
  known.reserve(allocations.size());
  for (const auto& [name, begin, size] : allocations) known.push_back({name, begin, size});
  GlobalMemory memory(std::move(known));
  Counters counters;
  std::vector<Finding> findings;
  Edges observed(muted);
  {
    const nb::gil_scoped_release without_gil;
    counters = run(program, shape, memory, parameters, seed, findings, recorder,
                   observe ? &observed : nullptr);
  }
  nb::dict result;
  result["findings"] = listed(findings);
  result["counters"] = as_dict(counters);
  nb::list uses;
  for (const auto& [pc, of] : observed.uses()) {
    uses.append(nb::make_tuple(pc, program.texts[pc], of.released, of.acquired, of.taught,
                               of.repaid, of.alone));
  }
  result["edges"] = uses;
  result["unpaid"] = observed.unpaid();
  return result;
}

}  // namespace
}  // namespace gpusim

NB_MODULE(_machine, module) {
  using namespace nb::literals;
  using gpusim::Program;
  module.doc() = "The machine that executes decoded kernels; see ts_gpusim.machine.";
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const gpusim::Fault& fault) {
      const nb::object type = nb::module_::import_("ts_gpusim.faults").attr("Fault");
      const nb::object value =
          type(fault.kind.c_str(), fault.what(), fault.history, gpusim::listed(fault.before));
      PyErr_SetObject(type.ptr(), value.ptr());
    }
  });
  gpusim::add_recorder(module);
  nb::class_<Program>(module, "Program")
      .def(nb::init<>())
      .def("add", &gpusim::add, "handler"_a, "operands"_a, "modifiers"_a, "guard"_a,
           "guard_negated"_a, "target"_a, "meets"_a, "work"_a, "text"_a, "uses"_a)
      .def("finish", &gpusim::finish, "registers"_a, "specials"_a, "static_shared_bytes"_a,
           "local_bytes"_a, "local_base"_a, "watched"_a, "functions"_a, "most_registers"_a);
  module.def("launch", &gpusim::launch, "program"_a, "grid"_a, "block"_a, "cluster"_a,
             "dynamic_shared_bytes"_a, "parameters"_a, "allocations"_a, "seed"_a, "resident"_a,
             "recorder"_a.none(), "observe"_a, "muted"_a);
  module.def("handlers", [] {
    std::vector<std::string> names;
    for (const auto& [name, _] : gpusim::handlers()) names.push_back(name);
    return names;
  });
}
