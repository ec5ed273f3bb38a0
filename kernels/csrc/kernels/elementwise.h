// SPDX-License-Identifier: MIT
//
// Kernels that touch each number once: norms, the gated activation, rope, the cache write.

// Tokens of a unit of work, so that small steps stay on the calling thread.
TS_INLINE i64 tokens_per_unit(i64 width) {
  return greater(1, (1 << 15) / greater(width, 1));
}

template <class Body>
TS_INLINE void for_each_token(i64 tokens, i64 width, const Body& body) {
  const i64 block = tokens_per_unit(width);
  parallel_for(ceil_div(tokens, block), [&](i64 index) {
    for (i64 t = index * block; t < lesser((index + 1) * block, tokens); ++t) body(t);
  });
}

// body(offset, n) for every vector of a row: n lanes are valid.
template <class Body>
TS_INLINE void for_each_vector(i64 width, const Body& body) {
  for (i64 d = 0; d < width; d += kW) body(d, static_cast<int>(lesser(kW, width - d)));
}

template <class T>
TS_INLINE void norm_row(const T* x, const T* weight, T* out, i64 width, float eps) {
  VF squares = vzero();
  for_each_vector(width, [&](i64 d, int n) TS_LAMBDA_INLINE {
    const VF v = vload_n(x + d, n);
    squares = vfma(v, v, squares);
  });
  const float mean = hsum(squares) / static_cast<float>(width);
  const VF factor = vset1(1.0f / __builtin_sqrtf(mean + eps));
  for_each_vector(width, [&](i64 d, int n) TS_LAMBDA_INLINE {
    vstore_n(out + d, vmul(vmul(vload_n(x + d, n), factor), vload_n(weight + d, n)), n);
  });
}

template <class T>
TS_INLINE void turn_pairs(const T* x, const float* cos_sin, T* out, i64 width) {
  const i64 half = width / 2;
  const float* const cos = cos_sin;
  const float* const sin = cos_sin + half;
  for (i64 i = 0; i < half; ++i) {
    const float p = to_float(x[2 * i]);
    const float q = to_float(x[2 * i + 1]);
    assign(out[2 * i], p * cos[i] - q * sin[i]);
    assign(out[2 * i + 1], p * sin[i] + q * cos[i]);
  }
}

// The sum is rounded to T before it is normed, as the residual stream holds it.
template <class T>
void rms_norm(const NormArgs& a) {
  const T* const weight = static_cast<const T*>(a.weight);
  for_each_token(a.tokens, a.width, [&](i64 t) {
    const T* x = static_cast<const T*>(a.x) + t * a.x_token;
    if (a.residual != nullptr) {
      const T* const residual = static_cast<const T*>(a.residual) + t * a.residual_token;
      T* const sum = static_cast<T*>(a.sum) + t * a.width;
      for_each_vector(a.width, [&](i64 d, int n) TS_LAMBDA_INLINE {
        vstore_n(sum + d, vadd(vload_n(x + d, n), vload_n(residual + d, n)), n);
      });
      x = sum;
    }
    norm_row(x, weight, static_cast<T*>(a.out) + t * a.width, a.width, a.eps);
  });
}

template <class T>
void silu_and_mul(const SiluArgs& a) {
  for_each_token(a.tokens, 4 * a.width, [&](i64 t) {
    const T* const gate = static_cast<const T*>(a.gate_up) + t * a.gate_up_token;
    const T* const up = gate + a.width;
    T* const out = static_cast<T*>(a.out) + t * a.width;
    for_each_vector(a.width, [&](i64 d, int n) TS_LAMBDA_INLINE {
      vstore_n(out + d, vmul(vsilu(vload_n(gate + d, n)), vload_n(up + d, n)), n);
    });
  });
}

template <class T>
void rope_interleaved(const RopeArgs& a) {
  for_each_token(a.tokens, 2 * a.heads * a.width, [&](i64 t) {
    const float* const cos_sin = a.cos_sin + a.positions[t] * a.width;
    for (i64 h = 0; h < a.heads; ++h) {
      const T* const x = static_cast<const T*>(a.x) + t * a.x_token + h * a.x_head;
      turn_pairs(x, cos_sin, static_cast<T*>(a.out) + t * a.out_token + h * a.out_head, a.width);
    }
  });
}

template <class T>
void mla_cache_write(const CacheWriteArgs& a) {
  for_each_token(a.tokens, 2 * (a.rank + a.rope), [&](i64 t) {
    const i64 page = a.cache_index[t] / a.page_size;
    const i64 offset = a.cache_index[t] % a.page_size;
    T* const to = static_cast<T*>(a.kv) + page * a.kv_page + offset * (a.rank + a.rope);
    const T* const latent = static_cast<const T*>(a.latent) + t * a.latent_token;
    const T* const key = static_cast<const T*>(a.rope_key) + t * a.rope_token;
    norm_row(latent, static_cast<const T*>(a.weight), to, a.rank, a.eps);
    turn_pairs(key, a.cos_sin + a.positions[t] * a.rope, to + a.rank, a.rope);
  });
}
