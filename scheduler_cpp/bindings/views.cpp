// SPDX-License-Identifier: MIT
#include "views.h"

#include <string>

#include "arguments.h"

namespace ts::python {

void PlanView::bind(nb::module_& module) {
  nb::class_<PlanView> plan(module, "Plan",
                            "What one step does; valid until that step is committed.");
  plan.def_prop_ro("step", [](PlanView& self) { return self.plan().step; })
      .def_prop_ro("num_rows", [](PlanView& self) { return self.plan().row_slot.size(); })
      .def_prop_ro("num_absorbed_rows",
                   [](PlanView& self) { return self.plan().num_absorbed_rows; })
      .def_prop_ro("num_tokens", [](PlanView& self) { return self.plan().num_tokens; })
      .def(
          "pack",
          [](PlanView& self, const nb::ndarray<std::int32_t, nb::ndim<1>, nb::c_contig>& arena) {
            const std::size_t words = self.plan().arena_words();
            if (arena.size() < words) {
              throw nb::value_error(("arena has " + std::to_string(arena.size()) +
                                     " words, but a plan may need " + std::to_string(words))
                                        .c_str());
            }
            return self.plan().pack({arena.data(), arena.size()});
          },
          nb::arg("arena"), "Write what the device reads into int32 memory; returns its words.");

  const auto column = [&plan](const char* name, auto buffer, ArrayView PlanView::* view) {
    plan.def_prop_ro(name, [buffer, view](PlanView& self) {
      auto& data = self.plan().*buffer;
      return (self.*view).get(data.data(), data.size(), data.capacity(), 0, self.scheduler_);
    });
  };
  column("row_slot", &Plan::row_slot, &PlanView::row_slot_);
  column("row_start", &Plan::row_start, &PlanView::row_start_);
  column("row_tokens", &Plan::row_tokens, &PlanView::row_tokens_);
  column("row_samples", &Plan::row_samples, &PlanView::row_samples_);
  column("admitted_slot", &Plan::admitted_slot, &PlanView::admitted_slot_);
  column("admitted_request", &Plan::admitted_request, &PlanView::admitted_request_);
  column("admitted_offset", &Plan::admitted_offset, &PlanView::admitted_offset_);
  column("admitted_prompt_tokens", &Plan::admitted_prompt_tokens,
         &PlanView::admitted_prompt_tokens_);
  column("admitted_tokens", &Plan::admitted_tokens, &PlanView::admitted_tokens_);
  plan.def_prop_ro("admitted_params", [](PlanView& self) {
    auto& data = self.plan().admitted_params;
    const auto width = static_cast<std::size_t>(self.scheduler_->config().params_size);
    const auto slots = self.plan().admitted_slot.capacity();
    return self.admitted_params_.get(reinterpret_cast<std::uint8_t*>(data.data()),
                                     self.plan().admitted_slot.size(), slots, width,
                                     self.scheduler_);
  });
  static_assert(sizeof(PagePatch) == 3 * sizeof(std::int32_t));
  const auto triples = [](Column<PagePatch>& data, ArrayView& view, PlanView& self) {
    return view.get(reinterpret_cast<std::int32_t*>(data.data()), data.size(), data.capacity(), 3,
                    self.scheduler_);
  };
  plan.def_prop_ro("page_patch", [triples](PlanView& self) {
    return triples(self.plan().page_patch, self.page_patch_, self);
  });
  plan.def(
      "group_page_patch",
      [triples](PlanView& self, nb::handle group) {
        auto& patches = self.plan().group_page_patch;
        const auto at = static_cast<std::size_t>(
            integer_argument(group, "group", 0, static_cast<std::int64_t>(patches.size())));
        if (at == 0) return triples(self.plan().page_patch, self.page_patch_, self);
        self.group_page_patch_.resize(patches.size());
        return triples(patches[at - 1], self.group_page_patch_[at - 1], self);
      },
      nb::arg("group").none(), "page_patch of a cache group: 0 is full attention.");
  column("transfer_id", &Plan::transfer_id, &PlanView::transfer_id_);
  column("transfer_request", &Plan::transfer_request, &PlanView::transfer_request_);
  column("transfer_kind", &Plan::transfer_kind, &PlanView::transfer_kind_);
  column("transfer_offset", &Plan::transfer_offset, &PlanView::transfer_offset_);
  column("transfer_device_page", &Plan::transfer_device_page, &PlanView::transfer_device_page_);
  column("transfer_host_page", &Plan::transfer_host_page, &PlanView::transfer_host_page_);
}

void OutputView::bind(nb::module_& module) {
  nb::class_<OutputView> output(module, "Output",
                                "The tokens a step yielded; valid until the next commit().");
  const auto column = [&output](const char* name, auto buffer, ArrayView OutputView::* view) {
    output.def_prop_ro(name, [buffer, view](OutputView& self) {
      auto& data = self.output().*buffer;
      return (self.*view).get(data.data(), data.size(), data.capacity(), 0, self.scheduler_);
    });
  };
  column("request", &Output::request, &OutputView::request_);
  column("token", &Output::token, &OutputView::token_);
  column("row", &Output::row, &OutputView::row_);
  column("finish", &Output::finish, &OutputView::finish_);
  column("cached_tokens", &Output::cached_tokens, &OutputView::cached_tokens_);
}

}  // namespace ts::python
