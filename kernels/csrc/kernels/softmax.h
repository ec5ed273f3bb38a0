// SPDX-License-Identifier: MIT
//
// One row's step of the online softmax: a block of scores joins what was seen before.

struct Running {
  float max, sum;
};
inline constexpr float kNothing = -__builtin_inff();

// What an accumulator is multiplied by at the end; a query that saw nothing gets zeros.
TS_INLINE float reciprocal(float sum) {
  return sum == 0.0f ? 0.0f : 1.0f / sum;
}

// scores[0..visible) of `width` become probabilities relative to the running maximum, the others 0.
// Returns what the row's accumulators are to be multiplied by. `width` is a multiple of kW.
template <class P>
TS_INLINE float softmax_step(Running& row, float* scores, P* out, i64 width, i64 visible,
                             float scale) {
  for (i64 j = greater(visible, 0); j < width; ++j) scores[j] = kNothing;
  VF top = vset1(row.max);
  for (i64 j = 0; j < width; j += kW) {
    const VF s = vmul(vload(scores + j), vset1(scale));
    vstore(scores + j, s);
    top = vmax(top, s);
  }
  const float max = hmax(top);
  if (max == kNothing) {  // nothing visible yet
    for (i64 j = 0; j < width; ++j) assign(out[j], 0.0f);
    return 1.0f;
  }
  VF sum = vzero();
  for (i64 j = 0; j < width; j += kW) {
    const VF p = vexp(vsub(vload(scores + j), vset1(max)));
    vstore(out + j, p);
    sum = vadd(sum, vload(out + j));  // as rounded, so that the weights add up to 1
  }
  const float factor = row.max == max ? 1.0f : hmax(vexp(vset1(row.max - max)));
  row.sum = row.sum * factor + hsum(sum);
  row.max = max;
  return factor;
}
