// Optimizer steps on one element, each written once over a mathematics M (core/scalar.h). The formulas are
// PyTorch's; slots start at zero, which for SGD equals PyTorch's first momentum buffer, the gradient itself.
#pragma once
#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule {

// What a step needs beside the buffers.
struct UpdateArgs {
  double lr = 0, momentum = 0, weight_decay = 0;
  double beta1 = 0, beta2 = 0, eps = 0;
  double correction1 = 1, correction2 = 1;  // 1 - beta^t, t = 1 at the first step
  bool nesterov = false;
};

// The same as the formulas read it, combined in double before it is rounded to T.
template <class T>
struct UpdateScalars {
  T lr, decay, momentum;
  bool nesterov;
  T beta1, beta2, rest1, rest2;  // rest = 1 - beta
  T step, unbias, eps;           // lr / correction1, 1 / sqrt(correction2)
  T keep;                        // 1 - lr decay
};

template <class T>
GM_INLINE UpdateScalars<T> update_scalars(const UpdateArgs& a) {
  return {T(a.lr),
          T(a.weight_decay),
          T(a.momentum),
          a.nesterov,
          T(a.beta1),
          T(a.beta2),
          T(1 - a.beta1),
          T(1 - a.beta2),
          T(a.lr / a.correction1),
          T(1 / __builtin_sqrt(a.correction2)),
          T(a.eps),
          T(1 - a.lr * a.weight_decay)};
}

// g <- g + decay w;  w <- w - lr g
template <class M>
struct Sgd {
  using V = typename M::V;
  static constexpr int slots = 0;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V&, V&) {
    w -= a.lr * (g + a.decay * w);
  }
};

// g <- g + decay w;  b <- momentum b + g;  w <- w - lr (nesterov ? g + momentum b : b)
template <class M>
struct SgdMomentum {
  using V = typename M::V;
  static constexpr int slots = 1;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V& buffer, V&) {
    g += a.decay * w;
    buffer = a.momentum * buffer + g;
    w -= a.lr * (a.nesterov ? g + a.momentum * buffer : buffer);
  }
};

// AdamW: w <- (1 - lr decay) w;  m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
// w <- w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
template <class M>
struct AdamW {
  using V = typename M::V;
  static constexpr int slots = 2;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V& mean, V& square) {
    w *= a.keep;
    moments(a, w, g, mean, square);
  }
  GM_INLINE void moments(const UpdateScalars<typename M::T>& a, V& w, V g, V& mean, V& square) {
    mean = a.beta1 * mean + a.rest1 * g;
    square = a.beta2 * square + a.rest2 * (g * g);
    w -= a.step * mean / (M::sqrt(square) * a.unbias + a.eps);
  }
};

// Adam: the decay goes into the gradient instead, g <- g + decay w.
template <class M>
struct Adam {
  using V = typename M::V;
  static constexpr int slots = 2;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V& mean, V& square) {
    AdamW<M>::moments(a, w, g + a.decay * w, mean, square);
  }
};

// visit(Formula{}) for the step that `rule` and its momentum ask for.
template <class M, class Visit>
GM_INLINE void with_update(Rule rule, const UpdateArgs& args, Visit visit) {
  switch (rule) {
    case Rule::sgd:
      if (args.momentum == 0) return visit(Sgd<M>{});
      return visit(SgdMomentum<M>{});
    case Rule::adam:
      return visit(Adam<M>{});
    case Rule::adamw:
      return visit(AdamW<M>{});
  }
}

}  // namespace gemmule
