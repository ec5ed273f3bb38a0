// SPDX-License-Identifier: MIT
//
// What a kernel is called with, and the table of kernels that each instruction set fills in.
// Strides are in elements; innermost axes are contiguous. DType says what the tensors hold.
#pragma once

#include <cstdint>

namespace ts {

using i64 = std::int64_t;

enum class DType : int { kFloat32 = 0, kBFloat16 = 1 };

// y[t, n] = sum_k x[t, k] w[n, k] + bias[n], for each of `heads` independent problems; a plain
// linear layer has one. Either w_k or w_row is 1. bias may be null, and is when w_k is not 1. y
// holds fp32 if `out_fp32`, else what x holds.
struct LinearArgs {
  const void *x, *w, *bias;
  void* y;
  i64 heads, tokens, n, k;
  i64 x_head, x_token, w_head, w_row, w_k, y_head, y_token;
  bool out_fp32;
};

// out[t] = sum_j weights[t, j] * down_e( silu(gate_e(x[t])) * up_e(x[t]) ), e = ids[t, j]; the last
// `shared` of the `experts` take every token, with weight 1.
struct MoeArgs {
  const void *x, *w_gate_up, *w_down;
  const float* weights;
  const i64* ids;
  void* out;
  i64 tokens, top_k, experts, shared, hidden, intermediate;
};

struct NormArgs {
  const void *x, *residual, *weight;  // residual and sum are null in a plain rms_norm
  void *out, *sum;
  i64 tokens, width, x_token, residual_token;
  float eps;
};

struct SiluArgs {
  const void* gate_up;
  void* out;
  i64 tokens, width, gate_up_token;
};

struct RopeArgs {
  const void* x;
  const i64* positions;
  const float* cos_sin;
  void* out;
  i64 tokens, heads, width, x_token, x_head, out_token, out_head;
};

struct CacheWriteArgs {
  void* kv;
  const void *latent, *rope_key, *weight;
  const float* cos_sin;
  const i64 *positions, *cache_index;
  i64 tokens, rank, rope, page_size, kv_page, latent_token, rope_token;
  float eps;
};

// Latent attention over pages. q: [rows, q_tokens, heads, rank + rope]. Row r's pages stand in row
// slots[r] of the block table, whose rows are `table_row` apart.
struct MlaDecodeArgs {
  const void *q, *kv;
  const std::int32_t *block_table, *slots, *context_lens;
  void* out;
  i64 rows, q_tokens, heads, rank, rope, page_size, kv_page, table_row;
  i64 q_row, q_token, q_head;
  float scale;
};

// Expanded attention. q: [tokens, heads, nope + rope]; w_kv_b: [heads, nope + value, rank].
struct MlaPrefillArgs {
  const void *q, *kv, *w_kv_b;
  const std::int32_t *block_table, *slots, *query_start, *context_lens;
  void* out;
  i64 tokens, rows, heads, nope, rope, value, rank, page_size, kv_page, table_row;
  i64 q_token, q_head;
  float scale;
};

// Logits are fp32 rows, `row` apart.
struct MostLikelyArgs {
  const float* logits;
  i64* ids;  // -1: the largest is no finite number
  i64 rows, vocab, row;
};

// counts: [slots, vocab]. Of contiguous logits, row[i] is penalised by the counts of slot[i].
struct PenaliseArgs {
  float* logits;
  const std::int32_t* counts;
  const i64 *row, *slot;
  const float *presence, *frequency, *repetition;
  i64 rows, vocab;
};

struct KernelTable {
  const char* name;
  void (*linear)(const LinearArgs&, DType);
  void (*moe_experts)(const MoeArgs&, DType);
  void (*rms_norm)(const NormArgs&, DType);
  void (*silu_and_mul)(const SiluArgs&, DType);
  void (*rope_interleaved)(const RopeArgs&, DType);
  void (*mla_cache_write)(const CacheWriteArgs&, DType);
  void (*mla_decode)(const MlaDecodeArgs&, DType);
  void (*mla_prefill)(const MlaPrefillArgs&, DType);
  void (*most_likely)(const MostLikelyArgs&);
  void (*penalise)(const PenaliseArgs&);
};

extern const KernelTable kBaseline;
#if defined(__x86_64__)
extern const KernelTable kAvx2;
extern const KernelTable kAvx512;
extern const KernelTable kAvx512Bf16;
#endif

}  // namespace ts
