// Elementwise losses of a prediction p and a target t, with their derivative in p, each written once over a
// mathematics M (core/scalar.h). A sample's loss is the mean over its outputs. The cross entropies couple the
// outputs of a row, so they live with their kernels.
#pragma once
#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule {

// (p - t)^2
template <class M>
struct SquaredError {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V p, V t, V) { return (p - t) * (p - t); }
  GM_INLINE V grad(V p, V t, V) { return T(2) * (p - t); }
};

// (p - t)^2 / 2
template <class M>
struct HalfSquaredError {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V p, V t, V) { return T(0.5) * (p - t) * (p - t); }
  GM_INLINE V grad(V p, V t, V) { return p - t; }
};

// |p - t|, derivative 0 at p = t
template <class M>
struct AbsoluteError {
  using V = typename M::V;
  GM_INLINE V value(V p, V t, V) { return M::abs(p - t); }
  GM_INLINE V grad(V p, V t, V) {
    const V d = p - t;  // the innermost d is 0 or NaN
    return M::select(d > M::splat(0), M::splat(1), M::select(d < M::splat(0), M::splat(-1), d));
  }
};

// log(x), at least -100 as PyTorch has it; NaN stays.
template <class M>
GM_INLINE typename M::V clamped_log(typename M::V log_x) {
  return M::select(log_x < M::splat(-100), M::splat(-100), log_x);
}

// -(t log p + (1 - t) log(1 - p)) of probabilities
template <class M>
struct BinaryCrossEntropy {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V p, V t, V) {
    return (t - T(1)) * clamped_log<M>(M::log1p(-p)) - t * clamped_log<M>(M::log(p));
  }
  GM_INLINE V grad(V p, V t, V) {
    const V variance = p * (T(1) - p), least = M::splat(T(1e-12));
    return (p - t) / M::select(variance < least, least, variance);
  }
};

// The same of logits: max(z, 0) - z t + log(1 + exp(-|z|))
template <class M>
struct BinaryCrossEntropyLogits {
  using V = typename M::V;
  GM_INLINE V value(V z, V t, V) {
    return M::select(z < M::splat(0), M::splat(0), z) - z * t + M::log1p(M::exp(-M::abs(z)));
  }
  GM_INLINE V grad(V z, V t, V) { return M::sigmoid(z) - t; }
};

// visit(Formula{}) for an elementwise loss; false for those that work on rows.
template <class M, class Visit>
GM_INLINE bool with_elementwise_loss(Loss loss, Visit visit) {
  switch (loss) {
    case Loss::mse:
      visit(SquaredError<M>{});
      return true;
    case Loss::half_mse:
      visit(HalfSquaredError<M>{});
      return true;
    case Loss::mae:
      visit(AbsoluteError<M>{});
      return true;
    case Loss::bce:
      visit(BinaryCrossEntropy<M>{});
      return true;
    case Loss::bce_with_logits:
      visit(BinaryCrossEntropyLogits<M>{});
      return true;
    case Loss::cross_entropy:
    case Loss::cross_entropy_probabilities:
      return false;
  }
  return false;
}

}  // namespace gemmule
