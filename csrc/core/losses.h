// Elementwise losses of a prediction p and a target t, with their derivative in p, each written once over a
// mathematics M (core/scalar.h). A sample's loss is the mean over its outputs. The third argument is the
// loss's parameter: delta of huber, eps of poisson_rates. Losses that couple the outputs of a row (the cross
// entropies, whose parameter is the label smoothing, the divergences, the hinge of classes) live with their
// kernels.
#pragma once
#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule {

// Losses whose targets may be labels, of more than one output.
GM_INLINE constexpr bool takes_labels(Loss loss) {
  return loss == Loss::cross_entropy || loss == Loss::cross_entropy_probabilities || loss == Loss::hinge ||
         loss == Loss::custom;
}

// Losses of a distribution over the outputs.
GM_INLINE constexpr bool takes_distributions(Loss loss) {
  return loss == Loss::cross_entropy || loss == Loss::cross_entropy_probabilities ||
         loss == Loss::kl_divergence || loss == Loss::kl_divergence_probabilities;
}

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

// (p - t)^2 / 2 up to |p - t| = delta, a straight line beyond
template <class M>
struct Huber {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V p, V t, V delta) {
    const V d = M::abs(p - t);
    return M::select(d <= delta, T(0.5) * d * d, delta * (d - T(0.5) * delta));
  }
  GM_INLINE V grad(V p, V t, V delta) {
    const V d = p - t;
    return M::select(d > delta, delta, M::select(d < -delta, -delta, d));
  }
};

// max(0, 1 - t z) of targets -1 and 1, derivative 0 at t z = 1
template <class M>
struct Hinge {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V z, V t, V) { return missing(z, t); }
  GM_INLINE V grad(V z, V t, V) {
    const V m = missing(z, t);  // the innermost m is 0 or NaN
    return M::select(m > M::splat(0), -t, m);
  }
  GM_INLINE V missing(V z, V t) {
    const V m = T(1) - t * z;
    return M::select(m <= M::splat(0), M::splat(0), m);
  }
};

// exp(p) - t p, for counts t of the rate exp(p); what does not depend on p is left out
template <class M>
struct Poisson {
  using V = typename M::V;
  GM_INLINE V value(V p, V t, V) { return M::exp(p) - t * p; }
  GM_INLINE V grad(V p, V t, V) { return M::exp(p) - t; }
};

// The same of the rate p itself: p - t log(p + eps)
template <class M>
struct PoissonRates {
  using V = typename M::V;
  using T = typename M::T;
  GM_INLINE V value(V p, V t, V eps) { return p - t * M::log(p + eps); }
  GM_INLINE V grad(V p, V t, V eps) { return T(1) - t / (p + eps); }
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
    case Loss::huber:
      visit(Huber<M>{});
      return true;
    case Loss::hinge:
      visit(Hinge<M>{});
      return true;
    case Loss::poisson:
      visit(Poisson<M>{});
      return true;
    case Loss::poisson_rates:
      visit(PoissonRates<M>{});
      return true;
    case Loss::cross_entropy:
    case Loss::cross_entropy_probabilities:
    case Loss::kl_divergence:
    case Loss::kl_divergence_probabilities:
    case Loss::custom:
      return false;
  }
  return false;
}

}  // namespace gemmule
