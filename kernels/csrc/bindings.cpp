// SPDX-License-Identifier: MIT
//
// The Python module ts_kernels._native. Tensors come as addresses and sizes: reading them from a
// torch tensor costs some 50 ns each, a DLPack exchange over a microsecond. ts_kernels/native has
// checked sizes and dtypes; here the values are checked that kernels use as indices.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "checks.h"
#include "dispatch.h"
#include "prepare_step.h"
#include "router.h"
#include "thread_pool.h"

namespace nb = nanobind;

namespace ts {
namespace {

using Address = std::uintptr_t;

template <class T = void>
T* at(Address address) {
  // An address is the cheapest way from a torch tensor to here.
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr)
}

// Releases the GIL first: the thread that holds the lock may be waiting for it.
template <class Args>
void call(void (*kernel)(const Args&, DType), const Args& args, bool bf16) {
  const nb::gil_scoped_release released;
  const KernelLock held;
  kernel(args, bf16 ? DType::kBFloat16 : DType::kFloat32);
}

void linear(bool bf16, bool out_fp32, Address x, Address w, Address bias, Address y, i64 heads,
            i64 tokens, i64 n, i64 k, i64 x_head, i64 x_token, i64 w_head, i64 w_row, i64 w_k,
            i64 y_head, i64 y_token) {
  call(kernels().linear,
       LinearArgs{at(x), at(w), at(bias), at(y), heads, tokens, n, k, x_head, x_token, w_head,
                  w_row, w_k, y_head, y_token, out_fp32},
       bf16);
}

void moe_experts(bool bf16, Address x, Address w_gate_up, Address w_down, Address weights,
                 Address ids, Address out, i64 tokens, i64 top_k, i64 experts, i64 shared,
                 i64 hidden, i64 intermediate) {
  check_indices("ids", at<i64>(ids), tokens * top_k, experts - shared);
  call(kernels().moe_experts,
       MoeArgs{at(x), at(w_gate_up), at(w_down), at<float>(weights), at<i64>(ids), at(out), tokens,
               top_k, experts, shared, hidden, intermediate},
       bf16);
}

void moe_route(Address logits, Address bias, Address weights, Address ids, i64 tokens, i64 experts,
               i64 top_k, i64 groups, i64 top_groups, bool normalise, float scale) {
  const nb::gil_scoped_release released;
  const KernelLock held;
  route(RouteArgs{at<float>(logits), at<float>(bias), at<float>(weights), at<i64>(ids), tokens,
                  experts, top_k, groups, top_groups, normalise, scale});
}

void rms_norm(bool bf16, Address x, Address residual, Address weight, Address out, Address sum,
              i64 tokens, i64 width, i64 x_token, i64 residual_token, float eps) {
  call(kernels().rms_norm,
       NormArgs{at(x), at(residual), at(weight), at(out), at(sum), tokens, width, x_token,
                residual_token, eps},
       bf16);
}

void silu_and_mul(bool bf16, Address gate_up, Address out, i64 tokens, i64 width, i64 token) {
  call(kernels().silu_and_mul, SiluArgs{at(gate_up), at(out), tokens, width, token}, bf16);
}

void rope_interleaved(bool bf16, Address x, Address positions, Address cos_sin, Address out,
                      i64 tokens, i64 heads, i64 width, i64 x_token, i64 x_head, i64 out_token,
                      i64 out_head, i64 max_positions) {
  check_indices("positions", at<i64>(positions), tokens, max_positions);
  call(kernels().rope_interleaved,
       RopeArgs{at(x), at<i64>(positions), at<float>(cos_sin), at(out), tokens, heads, width,
                x_token, x_head, out_token, out_head},
       bf16);
}

void mla_cache_write(bool bf16, Address kv, Address latent, Address rope_key, Address weight,
                     Address cos_sin, Address positions, Address cache_index, i64 tokens, i64 rank,
                     i64 rope, i64 page_size, i64 kv_page, i64 latent_token, i64 rope_token,
                     i64 pages, i64 max_positions, float eps) {
  check_indices("cache_index", at<i64>(cache_index), tokens, pages * page_size);
  check_indices("positions", at<i64>(positions), tokens, max_positions);
  call(kernels().mla_cache_write,
       CacheWriteArgs{at(kv), at(latent), at(rope_key), at(weight), at<float>(cos_sin),
                      at<i64>(positions), at<i64>(cache_index), tokens, rank, rope, page_size,
                      kv_page, latent_token, rope_token, eps},
       bf16);
}

void mla_decode(bool bf16, Address q, Address kv, Address block_table, Address slots,
                Address context_lens, Address out, i64 rows, i64 q_tokens, i64 heads, i64 rank,
                i64 rope, i64 page_size, i64 kv_page, i64 table_row, i64 q_row, i64 q_token,
                i64 q_head, float scale) {
  call(kernels().mla_decode,
       MlaDecodeArgs{at(q), at(kv), at<std::int32_t>(block_table), at<std::int32_t>(slots),
                     at<std::int32_t>(context_lens), at(out), rows, q_tokens, heads, rank, rope,
                     page_size, kv_page, table_row, q_row, q_token, q_head, scale},
       bf16);
}

void mla_prefill(bool bf16, Address q, Address kv, Address w_kv_b, Address block_table,
                 Address slots, Address query_start, Address context_lens, Address out, i64 tokens,
                 i64 rows, i64 heads, i64 nope, i64 rope, i64 value, i64 rank, i64 page_size,
                 i64 kv_page, i64 table_row, i64 q_token, i64 q_head, float scale) {
  call(kernels().mla_prefill,
       MlaPrefillArgs{at(q),
                      at(kv),
                      at(w_kv_b),
                      at<std::int32_t>(block_table),
                      at<std::int32_t>(slots),
                      at<std::int32_t>(query_start),
                      at<std::int32_t>(context_lens),
                      at(out),
                      tokens,
                      rows,
                      heads,
                      nope,
                      rope,
                      value,
                      rank,
                      page_size,
                      kv_page,
                      table_row,
                      q_token,
                      q_head,
                      scale},
       bf16);
}

void most_likely(Address logits, Address ids, i64 rows, i64 vocab, i64 row) {
  const nb::gil_scoped_release released;
  const KernelLock held;
  kernels().most_likely({at<float>(logits), at<i64>(ids), rows, vocab, row});
}

void penalise(Address logits, Address counts, Address row, Address slot, Address presence,
              Address frequency, Address repetition, i64 rows, i64 vocab) {
  const nb::gil_scoped_release released;
  const KernelLock held;
  kernels().penalise({at<float>(logits), at<std::int32_t>(counts), at<i64>(row), at<i64>(slot),
                      at<float>(presence), at<float>(frequency), at<float>(repetition), rows,
                      vocab});
}

void prepare_step_at(Address arena, Address tokens, Address pages, i64 slots, i64 max_tokens,
                     i64 columns, i64 page_size, i64 num_pages, Address token_ids,
                     Address positions, Address cache_index, Address token_slots,
                     Address absorbed_context, Address expanded_slots, Address query_start,
                     Address expanded_context, Address sample_index, Address sample_slots,
                     Address sample_positions) {
  prepare_step({at<const std::int32_t>(arena), at<std::int32_t>(tokens), at<std::int32_t>(pages),
                slots, max_tokens, columns, page_size, num_pages, at<i64>(token_ids),
                at<i64>(positions), at<i64>(cache_index), at<std::int32_t>(token_slots),
                at<std::int32_t>(absorbed_context), at<std::int32_t>(expanded_slots),
                at<std::int32_t>(query_start), at<std::int32_t>(expanded_context),
                at<i64>(sample_index), at<i64>(sample_slots), at<i64>(sample_positions)});
}

void append_tokens(Address tokens, Address slots, Address positions, Address ids, i64 rows,
                   i64 table_slots, i64 max_tokens) {
  const auto* slot = at<i64>(slots);
  const auto* position = at<i64>(positions);
  check_indices("slots", slot, rows, table_slots);
  check_indices("positions", position, rows, max_tokens);
  for (i64 row = 0; row < rows; ++row) {
    at<std::int32_t>(tokens)[(slot[row] * max_tokens) + position[row]] =
        static_cast<std::int32_t>(std::max<i64>(at<i64>(ids)[row], 0));
  }
}

}  // namespace
}  // namespace ts

NB_MODULE(_native, m) {
  m.doc() = "CPU kernels; the arguments are raw addresses: use ts_kernels.native.";
  m.def("linear", &ts::linear);
  m.def("moe_experts", &ts::moe_experts);
  m.def("moe_route", &ts::moe_route);
  m.def("rms_norm", &ts::rms_norm);
  m.def("silu_and_mul", &ts::silu_and_mul);
  m.def("rope_interleaved", &ts::rope_interleaved);
  m.def("mla_cache_write", &ts::mla_cache_write);
  m.def("mla_decode", &ts::mla_decode);
  m.def("mla_prefill", &ts::mla_prefill);
  m.def("most_likely", &ts::most_likely);
  m.def("penalise", &ts::penalise);
  m.def("prepare_step", &ts::prepare_step_at);
  m.def("append_tokens", &ts::append_tokens);

  m.def("num_threads", &ts::num_threads, "Threads that take part in a kernel.");
  m.def("set_num_threads", &ts::set_num_threads, nb::call_guard<nb::gil_scoped_release>(),
        "Sets it, to 1..1024; `ts_kernels` does, to the CPUs that the process may use.");
  m.def(
      "count_progress_at",
      [](ts::Address word) { ts::count_progress_at(ts::at<std::uint64_t>(word)); },
      nb::call_guard<nb::gil_scoped_release>(),
      "Counts chunks of work in the 8 bytes there, which must stay.");
  m.def("isa", [] { return ts::kernels().name; }, "The instruction set whose kernels run.");
  m.def("isas", &ts::supported_isas, "Those that this CPU can run, best first.");
  m.def("select_isa", &ts::select_isa, "Chooses another; for tests and measurements.");
}
