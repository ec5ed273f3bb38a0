// SPDX-License-Identifier: MIT
//
// exp and silu on vectors.

// e^x to about 1 unit in the last place; 0 below -87.3, NaN stays NaN. Cody-Waite reduction and the
// minimax polynomial of Cephes' expf.
TS_INLINE VF vexp(VF x) {
  const VF low = vset1(-87.3f);
  const VF c = vmax(low, vmin(vset1(88.7f), x));  // NaN in the second operand passes through
  const VF n = vround(vmul(c, vset1(1.44269504088896341f)));
  VF r = vfma(n, vset1(-0.693359375f), c);
  r = vfma(n, vset1(2.12194440e-4f), r);
  VF p = vset1(1.9875691500e-4f);
  p = vfma(p, r, vset1(1.3981999507e-3f));
  p = vfma(p, r, vset1(8.3334519073e-3f));
  p = vfma(p, r, vset1(4.1665795894e-2f));
  p = vfma(p, r, vset1(1.6666665459e-1f));
  p = vfma(p, r, vset1(5.0000001201e-1f));
  p = vadd(vfma(p, vmul(r, r), r), vset1(1.0f));
  return vzero_below(x, low, vscale2(p, n));
}

TS_INLINE VF vsilu(VF x) {
  return vdiv(x, vadd(vset1(1.0f), vexp(vsub(vzero(), x))));
}
