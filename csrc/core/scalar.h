// Mathematics of one number, for the formulas in activations.h, losses.h and updates.h on the host and on a
// CUDA device.
//
// Those formulas take a mathematics M: M::V is what they compute on, a scalar here and a vector of M::T in
// cpu/isa/math.h. A template parameter, because overloads on vector types would have to be seen before the
// formulas.
#pragma once
#include <cmath>

#include "core/inline.h"

namespace gemmule {

template <class Real>
struct ScalarMath {
  using T = Real;
  using V = Real;

  GM_INLINE V splat(T x) { return x; }
  GM_INLINE V select(bool mask, V a, V b) { return mask ? a : b; }
  GM_INLINE V abs(V x) { return std::fabs(x); }
  GM_INLINE V sqrt(V x) { return std::sqrt(x); }
  GM_INLINE V exp(V x) { return std::exp(x); }
  GM_INLINE V expm1(V x) { return std::expm1(x); }
  GM_INLINE V log(V x) { return std::log(x); }
  GM_INLINE V log1p(V x) { return std::log1p(x); }
  GM_INLINE V tanh(V x) { return std::tanh(x); }
  GM_INLINE V erf(V x) { return std::erf(x); }
  GM_INLINE V sigmoid(V x) {
    const V e = std::exp(-std::fabs(x));
    return (x < 0 ? e : V(1)) / (1 + e);
  }
};

}  // namespace gemmule
