// The mathematics of vectors (see core/scalar.h), of any width, in vector extensions alone. Correct with or
// without fused multiply-add, and over all numbers: subnormal arguments and results, -0, infinities, NaN.
// Bounds: exp 2 ULP; expm1, tanh, sigmoid, erf, log, log1p 4. Measured at most 1.1, and 2.1, 2.6, 2.4, 1.5,
// 0.9, 1.5.
#pragma once
#include "cpu/isa/tables.h"
#include "cpu/isa/vec.h"

namespace gemmule::cpu::GEMMULE_ISA {

template <class Real>
struct Math {
  using T = Real;
  using V = Vec<T>;
  using B = Bits<T>;
  using Constants = Table<T>;

  GM_INLINE V splat(T x) { return x - V{}; }
  template <class Mask>
  GM_INLINE V select(Mask mask, V a, V b) {
    return mask ? a : b;
  }
  GM_INLINE V infinity() { return splat(T(__builtin_inf())); }

  static constexpr auto sign_bit = decltype(Constants::sqrt_half)(1) << (8 * sizeof(T) - 1);
  GM_INLINE B sign(V x) { return B(x) & sign_bit; }
  GM_INLINE V abs(V x) { return V(B(x) & ~sign_bit); }

  // One instruction, which compilers find in this loop.
  GM_INLINE V sqrt(V x) {
    for (int i = 0; i < lanes<T>; ++i)
      x[i] = sizeof(T) == 4 ? T(__builtin_sqrtf(float(x[i]))) : T(__builtin_sqrt(x[i]));
    return x;
  }

  template <int size>
  GM_INLINE V polynomial(const T (&coefficients)[size], V x) {
    V sum = splat(coefficients[size - 1]);
    for (int i = size - 2; i >= 0; --i) sum = sum * x + coefficients[i];
    return sum;
  }

  // x = n ln 2 + r, n an integer and |r| <= ln(2) / 2; tail = expm1(r).
  struct Reduced {
    V n, tail;
  };
  GM_INLINE Reduced reduce(V x) {
    const V n = (x * Constants::log2_e + Constants::rounder) - Constants::rounder;
    const V r = (x - n * Constants::ln2_high) - n * Constants::ln2_low;
    return {n, r + r * r * polynomial(Constants::exp_tail, r)};
  }

  // 2^n for an integer n within the exponents of normal numbers: adding puts n + bias into the lowest bits.
  GM_INLINE V power_of_two(V n) {
    return V(B(n + (Constants::rounder + Constants::bias)) << Constants::mantissa);
  }

  GM_INLINE V exp(V x) {
    const V low = splat(Constants::exp_low), high = splat(Constants::exp_high);
    const Reduced e = reduce(select(x < low, low, select(x > high, high, x)));
    // 2^n in two factors: a result may be subnormal, or overflow only when rounded.
    const V half = (e.n * T(0.5) + Constants::rounder) - Constants::rounder;
    return (e.tail + T(1)) * power_of_two(half) * power_of_two(e.n - half);
  }

  GM_INLINE V expm1(V x) {
    const V low = splat(Constants::expm1_low), high = splat(Constants::exp_high);
    const Reduced e = reduce(select(x < low, low, select(x > high, high, x)));
    // At half size, where 2^n does not overflow.
    const V power = power_of_two(e.n - T(1));
    const V half = power * e.tail + (power - T(0.5));
    return V(B(half + half) | sign(x));
  }

  GM_INLINE V log(V x) {
    // x = 2^n m with m in [sqrt(1/2), sqrt 2)
    constexpr T lift = T(std::uint64_t(1) << Constants::mantissa);
    const auto subnormal = x < splat(Constants::smallest);
    constexpr auto one = decltype(Constants::sqrt_half)(Constants::bias) << Constants::mantissa;
    const B shifted = B(select(subnormal, x * lift, x)) + (one - Constants::sqrt_half);
    const V m = V((shifted & ((decltype(one)(1) << Constants::mantissa) - 1)) + Constants::sqrt_half);
    const V biased = V((shifted >> Constants::mantissa) | B(splat(lift))) - lift;
    const V n =
        biased - select(subnormal, splat(Constants::bias + Constants::mantissa), splat(Constants::bias));
    // log m = 2 s + s^3 q(s^2), with 2 s spelled f - f^2 / 2 + s f^2 / 2 to keep f's digits
    const V f = m - T(1), s = f / (f + T(2)), z = s * s, square = T(0.5) * f * f;
    const V rest = s * (square + z * polynomial(Constants::log_tail, z)) + n * Constants::ln2_low;
    const V y = n * Constants::ln2_high - ((square - rest) - f);
    const V special = select(x == V{}, -infinity(), select(x == infinity(), x, splat(T(__builtin_nan("")))));
    return select((x > V{}) & (x < infinity()), y, special);
  }

  // log(u) at u = 1 + x rounded, and what the rounding lost.
  GM_INLINE V log1p(V x) {
    const V u = x + T(1), y = log(u);
    const V corrected = y + (x - (u - T(1))) / u;
    return select(abs(y) == infinity(), y, select(x == V{}, x, corrected));
  }

  // q / (2 + q) with q = expm1(-2 |x|), up to sign
  GM_INLINE V tanh(V x) {
    const V q = expm1(T(-2) * abs(x));
    return V(B(q / (q + T(2))) ^ sign_bit ^ sign(x));
  }

  GM_INLINE V sigmoid(V x) {
    const V e = exp(-abs(x));  // below 1: no overflow hides a subnormal result
    return select(x < V{}, e, splat(1)) / (e + T(1));
  }

  GM_INLINE V erf(V x) {
    const V a = abs(x), end = splat(Constants::erf_end);
    const V near = x + x * polynomial(Constants::erf_near, x * x);
    const V far = T(1) - exp(-polynomial(Constants::erf_far, select(a > end, end, a)));
    return select(a > splat(1), V(B(far) | sign(x)), near);
  }
};

}  // namespace gemmule::cpu::GEMMULE_ISA
