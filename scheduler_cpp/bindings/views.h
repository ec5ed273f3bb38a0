// SPDX-License-Identifier: MIT
// Plan and output as Python sees them: numpy arrays over the scheduler's buffers, nothing copied.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <initializer_list>
#include <memory>
#include <vector>

#include "ts/scheduler.h"

namespace ts::python {

namespace nb = nanobind;

// The numpy array over the first rows of a column. The array over the whole buffer is made once,
// and a slice of it again only when the number of rows has changed: a steady step makes no object.
class ArrayView {
 public:
  // `width` 0: one-dimensional. The arrays keep `owner` alive.
  template <class T>
  nb::object get(T* data, std::size_t rows, std::size_t capacity, std::size_t width,
                 const std::shared_ptr<Scheduler>& owner) {
    if (view_.is_valid() && rows == rows_) return view_;
    if (!all_.is_valid()) all_ = whole(data, capacity, width, owner);
    PyObject* slice = PySequence_GetSlice(all_.ptr(), 0, static_cast<Py_ssize_t>(rows));
    if (slice == nullptr) throw nb::python_error();
    view_ = nb::steal(slice);
    rows_ = rows;
    return view_;
  }

 private:
  template <class T>
  static nb::object whole(T* data, std::size_t capacity, std::size_t width,
                          const std::shared_ptr<Scheduler>& owner) {
    using Owner = std::shared_ptr<Scheduler>;
    const nb::capsule capsule(new Owner(owner),
                              [](void* at) noexcept { delete static_cast<Owner*>(at); });
    const std::size_t shape[2] = {capacity, width};
    const std::size_t dimensions = width == 0 ? 1 : 2;
    return nb::cast(nb::ndarray<nb::numpy, T>(data, dimensions, shape, capsule));
  }

  nb::object all_;
  nb::object view_;
  std::size_t rows_ = 0;
};

class PlanView {
 public:
  // Of one of the scheduler's plan buffers: there are as many as steps may be in flight.
  PlanView(std::shared_ptr<Scheduler> scheduler, std::size_t buffers)
      : scheduler_(std::move(scheduler)), buffers_(buffers) {}
  static void bind(nb::module_& module);

 private:
  [[nodiscard]] Plan& plan() { return scheduler_->plan_buffers(buffers_); }

  std::shared_ptr<Scheduler> scheduler_;
  std::size_t buffers_;
  ArrayView row_slot_, row_start_, row_tokens_, row_samples_;
  ArrayView admitted_slot_, admitted_request_, admitted_offset_, admitted_prompt_tokens_;
  ArrayView admitted_tokens_, admitted_params_, page_patch_;
  ArrayView transfer_id_, transfer_request_, transfer_kind_, transfer_offset_,
      transfer_device_page_;
  ArrayView transfer_host_page_;
  std::vector<ArrayView> group_page_patch_;
};

class OutputView {
 public:
  explicit OutputView(std::shared_ptr<Scheduler> scheduler) : scheduler_(std::move(scheduler)) {}
  static void bind(nb::module_& module);

 private:
  [[nodiscard]] Output& output() { return scheduler_->output_buffers(); }

  std::shared_ptr<Scheduler> scheduler_;
  ArrayView request_, token_, row_, finish_, cached_tokens_;
};

}  // namespace ts::python
