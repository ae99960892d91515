// Optimizer steps on one element, each written once over a mathematics M (core/scalar.h). Where PyTorch has
// the rule the formula is PyTorch's. Slots start at zero, Adagrad's at a value of the user's; for SGD zero
// equals PyTorch's first momentum buffer, the gradient itself.
#pragma once
#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule {

inline constexpr int rule_slots = 3;              // the most that a formula has: RMSprop's
inline constexpr int max_slots = rule_slots + 1;  // and the running average of the weights, in the next one

// What Muon needs beside the common settings; AdamW trains what is no matrix.
struct MuonArgs {
  double coefficients[3] = {0, 0, 0};  // of Newton-Schulz: x <- (a + b x x^T + c (x x^T)^2) x
  double eps = 0;                      // the least that the momentum is divided by
  int steps = 0;
  bool match_rms = false;  // how the rate follows the shape: 0.2 sqrt(max(rows, cols)), or as `original`
  double vector_lr = 1;    // AdamW's rate as a multiple of Muon's
  double vector_decay = 0, vector_eps = 0;
};

// What a step needs beside the buffers.
struct UpdateArgs {
  double lr = 0, momentum = 0, weight_decay = 0;
  double beta1 = 0, beta2 = 0, eps = 0;  // beta2 is RMSprop's alpha
  double lr_decay = 0;                   // Adagrad's
  bool nesterov = false, centered = false;
  MuonArgs muon;

  // What every rule may wear: see dressed().
  double l1 = 0;
  double clip_value = __builtin_inf(), clip_norm = __builtin_inf(), max_norm = __builtin_inf();
  double ema = 0;  // the running average's decay; 0: there is none

  // Of one step.
  double correction1 = 1, correction2 = 1;  // what divides the rate; 1 - beta2^t, t = 1 at the first step
  double scale = 1;                         // of the gradients: clip_norm's share
};

// The same as the formulas read it, combined in double before it is rounded to T.
template <class T>
struct UpdateScalars {
  T lr, decay, momentum, fresh;  // fresh = 1 - momentum
  bool nesterov;
  T beta1, beta2, rest1, rest2;  // rest = 1 - beta
  T step, unbias, eps;           // lr / correction1, 1 / sqrt(correction2)
  T keep;                        // 1 - lr decay
};

// An eps that keeps from dividing by 0 must not count as 0 itself (core/subnormals.h).
template <class T>
GM_INLINE T normal(double eps) {
  const double least = sizeof(T) == sizeof(float) ? double{__FLT_MIN__} : __DBL_MIN__;
  return T(eps > 0 && eps < least ? least : eps);
}

template <class T>
GM_INLINE UpdateScalars<T> update_scalars(const UpdateArgs& a) {
  return {T(a.lr),
          T(a.weight_decay),
          T(a.momentum),
          T(1 - a.momentum),
          a.nesterov,
          T(a.beta1),
          T(a.beta2),
          T(1 - a.beta1),
          T(1 - a.beta2),
          T(a.lr / a.correction1),
          T(1 / __builtin_sqrt(a.correction2)),
          normal<T>(a.eps),
          T(1 - a.lr * a.weight_decay)};
}

// -1, 0 or 1; NaN is 0.
template <class M>
GM_INLINE typename M::V sign(typename M::V x) {
  const auto zero = M::splat(0);
  return M::select(x > zero, M::splat(1), M::select(x < zero, M::splat(-1), zero));
}

// -- rules
// ---------------------------------------------------------------------------------------------------
//
// A formula has `slots`, `step`, and `bound`: no magnitude that a step meets on the way is larger, where
// the gradient, with decay and l1 in it, is at most g and the weight and the slots are at most x. Infinite
// where a division may have nothing to divide by.

// g <- g + decay w;  w <- w - lr g
template <class M>
struct Sgd {
  using V = typename M::V;
  static constexpr int slots = 0;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&)[rule_slots]) {
    w -= a.lr * (g + a.decay * w);
  }
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) { return x + g + a.lr * g; }
};

// g <- g + decay w;  b <- momentum b + g;  w <- w - lr (nesterov ? g + momentum b : b)
template <class M>
struct SgdMomentum {
  using V = typename M::V;
  static constexpr int slots = 1;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&slot)[rule_slots]) {
    V& buffer = slot[0];
    g += a.decay * w;
    buffer = a.momentum * buffer + g;
    w -= a.lr * (a.nesterov ? g + a.momentum * buffer : buffer);
  }
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) {
    const double buffer = a.momentum * x + g;
    return x + (1 + a.lr) * (g + buffer + a.momentum * buffer);
  }
};

// AdamW: w <- (1 - lr decay) w;  m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2;
// w <- w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
template <class M>
struct AdamW {
  using V = typename M::V;
  static constexpr int slots = 2;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&slot)[rule_slots]) {
    w *= a.keep;
    moments(a, w, g, slot[0], slot[1]);
  }
  GM_INLINE void moments(const UpdateScalars<typename M::T>& a, V& w, V g, V& mean, V& square) {
    mean = a.beta1 * mean + a.rest1 * g;
    square = a.beta2 * square + a.rest2 * (g * g);
    w -= a.step * mean / (M::sqrt(square) * a.unbias + a.eps);
  }
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) {
    const double mean = x + g, square = x + g * g;
    return x * (1 + a.lr * a.weight_decay) + square / __builtin_sqrt(1 - a.beta2) +
           (1 + a.lr / (1 - a.beta1)) * mean * (1 + 1 / a.eps);
  }
};

// Adam: the decay goes into the gradient instead, g <- g + decay w.
template <class M>
struct Adam {
  using V = typename M::V;
  static constexpr int slots = 2;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&slot)[rule_slots]) {
    AdamW<M>::moments(a, w, g + a.decay * w, slot[0], slot[1]);
  }
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) { return AdamW<M>::bound(a, g, x); }
};

// g <- g + decay w;  v <- alpha v + (1 - alpha) g^2;  q = g / (sqrt(v) + eps);  w <- w - lr q
// centered: m <- alpha m + (1 - alpha) g, and q = g / (sqrt(v - m^2) + eps); a difference that rounding made
// negative counts as 0. momentum: b <- momentum b + q;  w <- w - lr b.
template <class M, bool centered, bool momentum>
struct RmsProp {
  using V = typename M::V;
  static constexpr int slots = 1 + centered + momentum;  // v, b, m, those it has
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&slot)[rule_slots]) {
    g += a.decay * w;
    slot[0] = a.beta2 * slot[0] + a.rest2 * (g * g);
    V spread = slot[0];
    if constexpr (centered) {
      V& mean = slot[1 + momentum];
      mean = a.beta2 * mean + a.rest2 * g;
      spread -= mean * mean;
      spread = M::select(spread < M::splat(0), M::splat(0), spread);
    }
    V q = g / (M::sqrt(spread) + a.eps);
    if constexpr (momentum) q = slot[1] = a.momentum * slot[1] + q;
    w -= a.lr * q;
  }
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) {
    const double mean = x + g, q = g * (1 + 1 / a.eps);
    return x + g * g + mean * mean + (1 + a.lr) * (q + a.momentum * x);
  }
};

// g <- g + decay w;  s <- s + g^2;  w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)
template <class M>
struct Adagrad {
  using V = typename M::V;
  static constexpr int slots = 1;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&slot)[rule_slots]) {
    g += a.decay * w;
    slot[0] += g * g;
    w -= a.step * g / (M::sqrt(slot[0]) + a.eps);
  }
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) {
    return x + g * g + (1 + a.lr) * g * (1 + 1 / a.eps);
  }
};

// w <- (1 - lr decay) w - lr sign(beta1 m + (1 - beta1) g);  m <- beta2 m + (1 - beta2) g
template <class M>
struct Lion {
  using V = typename M::V;
  static constexpr int slots = 1;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&slot)[rule_slots]) {
    V& mean = slot[0];
    w = a.keep * w - a.lr * sign<M>(a.beta1 * mean + a.rest1 * g);
    mean = a.beta2 * mean + a.rest2 * g;
  }
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) {
    return g + a.lr + x * (1 + a.lr * a.weight_decay);
  }
};

// Muon before the momentum is made orthogonal: b' = momentum b + (1 - momentum) g, and the direction in the
// second slot is nesterov ? (1 - momentum) g + momentum b' : b'. Weight and momentum stay as they are.
template <class M>
struct MuonDirection {
  using V = typename M::V;
  static constexpr int slots = 2;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V&, V g, V (&slot)[rule_slots]) {
    const V buffer = a.momentum * slot[0] + a.fresh * g;
    slot[1] = a.nesterov ? a.fresh * g + a.momentum * buffer : buffer;
  }
  GM_INLINE double bound(const UpdateArgs&, double g, double x) { return 2 * (x + g); }
};

// And behind it: b <- momentum b + (1 - momentum) g;  w <- (1 - lr decay) w - lr / correction1 direction
template <class M>
struct Muon {
  using V = typename M::V;
  static constexpr int slots = 2;
  GM_INLINE void step(const UpdateScalars<typename M::T>& a, V& w, V g, V (&slot)[rule_slots]) {
    slot[0] = a.momentum * slot[0] + a.fresh * g;
    w = a.keep * w - a.step * slot[1];
  }
  // 1 / correction1 is the square root of a length.
  GM_INLINE double bound(const UpdateArgs& a, double g, double x) {
    return g + x * (1 + a.lr * a.weight_decay) + a.lr * 1e10 * (x + g);
  }
};

// visit(Formula{}) for the step that `rule` and its settings ask for.
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
    case Rule::rmsprop:
      if (args.momentum == 0)
        return args.centered ? visit(RmsProp<M, true, false>{}) : visit(RmsProp<M, false, false>{});
      return args.centered ? visit(RmsProp<M, true, true>{}) : visit(RmsProp<M, false, true>{});
    case Rule::adagrad:
      return visit(Adagrad<M>{});
    case Rule::lion:
      return visit(Lion<M>{});
    case Rule::muon:
      return visit(Muon<M>{});
    case Rule::muon_direction:
      return visit(MuonDirection<M>{});
  }
}

// -- what every rule may wear
// --------------------------------------------------------------------------------

// Whether a step is more than its rule's formula: that takes kernels of its own, so that the plain ones stay
// as they are.
GM_INLINE bool dressed(const UpdateArgs& a) {
  return a.l1 != 0 || a.clip_value < __builtin_inf() || a.scale != 1 || a.ema != 0;
}

// What a dressed step does to a gradient, as the formulas read it.
template <class T>
struct DressScalars {
  T limit, scale, l1;
};

template <class T>
GM_INLINE DressScalars<T> dress_scalars(const UpdateArgs& a) {
  return {T(a.clip_value), T(a.scale), T(a.l1)};
}

// clamp(g, -clip_value, clip_value) scale + l1 sign(w)
template <class M>
GM_INLINE typename M::V dressed_gradient(const DressScalars<typename M::T>& a, typename M::V w,
                                         typename M::V g) {
  const auto most = M::splat(a.limit);
  g = M::select(g > most, most, M::select(g < -most, -most, g));
  return g * a.scale + a.l1 * sign<M>(w);
}

}  // namespace gemmule
