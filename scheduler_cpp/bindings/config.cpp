// SPDX-License-Identifier: MIT
#include "ts/config.h"

#include "arguments.h"
#include "config.h"

namespace ts::python {
namespace {

constexpr const char* kSlidingWindow = "sliding_window";
constexpr const char* kRecurrent = "recurrent";

const char* name(CacheGroupKind kind) {
  return kind == CacheGroupKind::kRecurrent ? kRecurrent : kSlidingWindow;
}

CacheGroupKind kind_argument(nb::handle value) {
  if (!PyUnicode_Check(value.ptr())) throw nb::type_error("kind must be a str");
  const std::string text = nb::str(value).c_str();
  if (text == kSlidingWindow) return CacheGroupKind::kSlidingWindow;
  if (text == kRecurrent) return CacheGroupKind::kRecurrent;
  throw nb::value_error(
      ("kind is '" + text + "'; it must be '" + kSlidingWindow + "' or '" + kRecurrent + "'")
          .c_str());
}

std::vector<CacheGroup> groups_argument(nb::handle value) {
  const nb::object iterator = nb::steal(PyObject_GetIter(value.ptr()));
  if (!iterator.is_valid()) {
    PyErr_Clear();
    throw nb::type_error("cache_groups must be an iterable of CacheGroup");
  }
  std::vector<CacheGroup> groups;
  while (PyObject* item = PyIter_Next(iterator.ptr())) {
    const nb::object group = nb::steal(item);
    if (!nb::isinstance<CacheGroup>(group)) {
      throw nb::type_error("cache_groups must be an iterable of CacheGroup");
    }
    groups.push_back(nb::cast<CacheGroup>(group));
  }
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  return groups;
}

void bind_cache_group(nb::module_& module) {
  using namespace nb::literals;
  const auto make = [](CacheGroup* self, nb::handle kind, nb::handle num_pages, nb::handle window) {
    const auto int32 = [](nb::handle value, const char* name) {
      return static_cast<std::int32_t>(integer_argument(value, name, INT32_MIN, INT32_MAX));
    };
    new (self) CacheGroup{.kind = kind_argument(kind),
                          .num_pages = int32(num_pages, "num_pages"),
                          .window = int32(window, "window")};
  };
  nb::class_<CacheGroup>(module, "CacheGroup",
                         "Pages of one geometry, beside those of full attention; immutable.")
      .def("__init__", make, "kind"_a.none(), "num_pages"_a.none(), "window"_a.none() = 0)
      .def_prop_ro("kind", [](const CacheGroup& self) { return name(self.kind); })
      .def_ro("num_pages", &CacheGroup::num_pages)
      .def_ro("window", &CacheGroup::window);
}

}  // namespace

void bind_config(nb::module_& module) {
  using namespace nb::literals;
  bind_cache_group(module);
  const auto make =
      [](SchedulerConfig* self, nb::handle page_size, nb::handle num_pages, nb::handle max_num_seqs,
         nb::handle max_model_len, nb::handle max_num_batched_tokens,
         nb::handle chunked_prefill_size, nb::handle vocab_size, nb::handle absorb_from,
         nb::handle enable_prefix_caching, nb::handle enable_kv_events, nb::handle params_size,
         nb::handle dp_rank, nb::handle max_overtakes, nb::handle overlap_depth,
         nb::handle num_speculative_tokens, nb::handle min_tps_per_user, nb::handle peer_timeout,
         nb::handle num_host_pages, nb::handle cache_groups) {
        const auto int32 = [](nb::handle value, const char* name) {
          return static_cast<std::int32_t>(integer_argument(value, name, INT32_MIN, INT32_MAX));
        };
        const SchedulerConfig config{
            .page_size = int32(page_size, "page_size"),
            .num_pages = int32(num_pages, "num_pages"),
            .max_num_seqs = int32(max_num_seqs, "max_num_seqs"),
            .max_model_len = int32(max_model_len, "max_model_len"),
            .max_num_batched_tokens = int32(max_num_batched_tokens, "max_num_batched_tokens"),
            .chunked_prefill_size = int32(chunked_prefill_size, "chunked_prefill_size"),
            .vocab_size = int32(vocab_size, "vocab_size"),
            .absorb_from = int32(absorb_from, "absorb_from"),
            .enable_prefix_caching = bool_argument(enable_prefix_caching, "enable_prefix_caching"),
            .enable_kv_events = bool_argument(enable_kv_events, "enable_kv_events"),
            .params_size = int32(params_size, "params_size"),
            .dp_rank = int32(dp_rank, "dp_rank"),
            .max_overtakes = int32(max_overtakes, "max_overtakes"),
            .overlap_depth = int32(overlap_depth, "overlap_depth"),
            .num_speculative_tokens = int32(num_speculative_tokens, "num_speculative_tokens"),
            .min_tps_per_user = real_argument(min_tps_per_user, "min_tps_per_user"),
            .peer_timeout = real_argument(peer_timeout, "peer_timeout"),
            .num_host_pages = int32(num_host_pages, "num_host_pages"),
            .cache_groups = groups_argument(cache_groups),
        };
        validate(config);
        new (self) SchedulerConfig(config);
      };
  const SchedulerConfig defaults;
  nb::class_<SchedulerConfig>(module, "SchedulerConfig", "Sizes and limits; immutable.")
      .def("__init__", make, nb::kw_only(), "page_size"_a.none() = defaults.page_size,
           "num_pages"_a.none() = defaults.num_pages,
           "max_num_seqs"_a.none() = defaults.max_num_seqs,
           "max_model_len"_a.none() = defaults.max_model_len,
           "max_num_batched_tokens"_a.none() = defaults.max_num_batched_tokens,
           "chunked_prefill_size"_a.none() = defaults.chunked_prefill_size,
           "vocab_size"_a.none() = defaults.vocab_size,
           "absorb_from"_a.none() = defaults.absorb_from,
           "enable_prefix_caching"_a.none() = defaults.enable_prefix_caching,
           "enable_kv_events"_a.none() = defaults.enable_kv_events,
           "params_size"_a.none() = defaults.params_size, "dp_rank"_a.none() = defaults.dp_rank,
           "max_overtakes"_a.none() = defaults.max_overtakes,
           "overlap_depth"_a.none() = defaults.overlap_depth,
           "num_speculative_tokens"_a.none() = defaults.num_speculative_tokens,
           "min_tps_per_user"_a.none() = defaults.min_tps_per_user,
           "peer_timeout"_a.none() = defaults.peer_timeout,
           "num_host_pages"_a.none() = defaults.num_host_pages,
           "cache_groups"_a.none() = nb::tuple())
      .def_ro("page_size", &SchedulerConfig::page_size)
      .def_ro("num_pages", &SchedulerConfig::num_pages)
      .def_ro("max_num_seqs", &SchedulerConfig::max_num_seqs)
      .def_ro("max_model_len", &SchedulerConfig::max_model_len)
      .def_ro("max_num_batched_tokens", &SchedulerConfig::max_num_batched_tokens)
      .def_ro("chunked_prefill_size", &SchedulerConfig::chunked_prefill_size)
      .def_ro("vocab_size", &SchedulerConfig::vocab_size)
      .def_ro("absorb_from", &SchedulerConfig::absorb_from)
      .def_ro("enable_prefix_caching", &SchedulerConfig::enable_prefix_caching)
      .def_ro("enable_kv_events", &SchedulerConfig::enable_kv_events)
      .def_ro("params_size", &SchedulerConfig::params_size)
      .def_ro("dp_rank", &SchedulerConfig::dp_rank)
      .def_ro("max_overtakes", &SchedulerConfig::max_overtakes)
      .def_ro("overlap_depth", &SchedulerConfig::overlap_depth)
      .def_ro("num_speculative_tokens", &SchedulerConfig::num_speculative_tokens)
      .def_ro("min_tps_per_user", &SchedulerConfig::min_tps_per_user)
      .def_ro("peer_timeout", &SchedulerConfig::peer_timeout)
      .def_ro("num_host_pages", &SchedulerConfig::num_host_pages)
      .def_prop_ro("cache_groups",
                   [](const SchedulerConfig& self) {
                     nb::list groups;
                     for (const CacheGroup& group : self.cache_groups)
                       groups.append(nb::cast(group));
                     return nb::tuple(groups);
                   })
      .def_prop_ro("pages_per_sequence", &pages_per_sequence, "Columns of the block table.");
}

}  // namespace ts::python
