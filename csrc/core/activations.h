// Activations h = f(z) with f' and f'', each written once over a mathematics M (core/scalar.h).
//
// f' and f'' take what the forward pass keeps: h where it determines them, z for the rest (gelu, gelu_tanh,
// silu); the parameter's name says which, and saves_input() says it to those who plan memory. Comparisons are
// turned so that NaN falls through to the result. Where f has a kink its derivative there is PyTorch's:
// relu'(0) = 0.
#pragma once
#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule {

// True where f' needs z, false where it is computed from h.
GM_INLINE constexpr bool saves_input(Act act) {
  return act == Act::gelu || act == Act::gelu_tanh || act == Act::silu;
}

// h = z
template <class M>
struct Identity {
  using V = typename M::V;
  GM_INLINE V value(V z, V) { return z; }
  GM_INLINE V first(V, V) { return M::splat(1); }
  GM_INLINE V second(V, V) { return M::splat(0); }
};

// h = max(z, 0)
template <class M>
struct Relu {
  using V = typename M::V;
  GM_INLINE V value(V z, V) { return M::select(z < M::splat(0), M::splat(0), z); }
  GM_INLINE V first(V h, V) { return M::select(h <= M::splat(0), M::splat(0), M::splat(1)); }
  GM_INLINE V second(V, V) { return M::splat(0); }
};

// h = z for z >= 0, slope z below; slope >= 0 keeps the sign, so h tells f'.
template <class M>
struct LeakyRelu {
  using V = typename M::V;
  GM_INLINE V value(V z, V slope) { return M::select(z < M::splat(0), slope * z, z); }
  GM_INLINE V first(V h, V slope) { return M::select(h <= M::splat(0), slope, M::splat(1)); }
  GM_INLINE V second(V, V) { return M::splat(0); }
};

// h = z for z >= 0, slope (exp(z) - 1) below, where f' = f'' = slope exp(z) = h + slope.
template <class M>
struct Elu {
  using V = typename M::V;
  GM_INLINE V value(V z, V slope) { return M::select(z < M::splat(0), slope * M::expm1(z), z); }
  GM_INLINE V first(V h, V slope) { return M::select(h <= M::splat(0), h + slope, M::splat(1)); }
  GM_INLINE V second(V h, V slope) { return M::select(h <= M::splat(0), h + slope, M::splat(0)); }
};

// h = z Phi(z) = z (1 + erf(z / sqrt 2)) / 2, with phi = Phi' the normal density.
template <class M>
struct Gelu {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V z, V) { return z * cumulative(z); }
  GM_INLINE V first(V z, V) { return cumulative(z) + z * density(z); }
  GM_INLINE V second(V z, V) { return density(z) * (T(2) - z * z); }

  GM_INLINE V cumulative(V z) { return T(0.5) + T(0.5) * M::erf(z * T(0.70710678118654752)); }
  GM_INLINE V density(V z) { return T(0.39894228040143268) * M::exp(T(-0.5) * z * z); }
};

// h = z (1 + tanh u) / 2, u = sqrt(2 / pi) (z + 0.044715 z^3)
template <class M>
struct GeluTanh {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V z, V) { return z * (T(0.5) + T(0.5) * M::tanh(inner(z))); }
  GM_INLINE V first(V z, V) {
    const V x = bounded(z), t = M::tanh(inner(x));
    return T(0.5) + T(0.5) * t + T(0.5) * x * (T(1) - t * t) * inner_first(x);
  }
  GM_INLINE V second(V z, V) {
    const V x = bounded(z), t = M::tanh(inner(x)), du = inner_first(x), ddu = T(6) * scale * cubic * x;
    return (T(1) - t * t) * (du + T(0.5) * x * (ddu - T(2) * t * du * du));
  }

  static constexpr T scale = T(0.79788456080286536), cubic = T(0.044715);
  GM_INLINE V inner(V z) { return scale * z * (T(1) + cubic * z * z); }
  GM_INLINE V inner_first(V z) { return scale * (T(1) + T(3) * cubic * z * z); }
  // tanh u is +-1 to the last bit beyond 16; a larger z would only make u' overflow, and 0 times infinity.
  GM_INLINE V bounded(V z) {
    const V edge = M::splat(16);
    return M::select(z > edge, edge, M::select(z < -edge, -edge, z));
  }
};

// h = z sigma(z), sigma(z) = 1 / (1 + exp(-z))
template <class M>
struct Silu {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V z, V) { return z * M::sigmoid(z); }
  GM_INLINE V first(V z, V) {
    const V s = M::sigmoid(z);
    return s + z * s * (T(1) - s);
  }
  GM_INLINE V second(V z, V) {
    const V s = M::sigmoid(z);
    return s * (T(1) - s) * (T(2) + z * (T(1) - T(2) * s));
  }
};

// h = 1 / (1 + exp(-slope z))
template <class M>
struct Sigmoid {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V z, V slope) { return M::sigmoid(slope * z); }
  GM_INLINE V first(V h, V slope) { return slope * h * (T(1) - h); }
  GM_INLINE V second(V h, V slope) { return slope * slope * h * (T(1) - h) * (T(1) - T(2) * h); }
};

template <class M>
struct Tanh {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V z, V) { return M::tanh(z); }
  GM_INLINE V first(V h, V) { return (T(1) - h) * (T(1) + h); }
  GM_INLINE V second(V h, V) { return T(-2) * h * (T(1) - h) * (T(1) + h); }
};

// h = log(1 + exp(z)) = max(z, 0) + log1p(exp(-|z|)); f' = sigma(z) = 1 - exp(-h).
template <class M>
struct Softplus {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V z, V) {
    return M::select(z < M::splat(0), M::splat(0), z) + M::log1p(M::exp(-M::abs(z)));
  }
  GM_INLINE V first(V h, V) { return -M::expm1(-h); }
  GM_INLINE V second(V h, V) {
    const V s = first(h, h);
    return s * (T(1) - s);
  }
};

// visit(Formula{}) for the formula that `act` names: a loop in `visit` is compiled once per activation.
template <class M, class Visit>
GM_INLINE void with_activation(Act act, Visit visit) {
  switch (act) {
    case Act::identity:
      return visit(Identity<M>{});
    case Act::relu:
      return visit(Relu<M>{});
    case Act::leaky_relu:
      return visit(LeakyRelu<M>{});
    case Act::elu:
      return visit(Elu<M>{});
    case Act::gelu:
      return visit(Gelu<M>{});
    case Act::gelu_tanh:
      return visit(GeluTanh<M>{});
    case Act::silu:
      return visit(Silu<M>{});
    case Act::sigmoid:
      return visit(Sigmoid<M>{});
    case Act::tanh:
      return visit(Tanh<M>{});
    case Act::softplus:
      return visit(Softplus<M>{});
  }
}

}  // namespace gemmule
