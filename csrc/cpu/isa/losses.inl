// Losses of rows of predictions, and their gradients. Included by element.inl.
#pragma once
#include "core/losses.h"
#include "cpu/isa/rows.inl"

namespace gemmule::cpu::GEMMULE_ISA {

// The targets of a row: one an output, or a label.
template <class T>
struct RowTarget {
  RowTarget(const LossArgs<T>& args, Index r)
      : labels(args.labels),
        label(labels ? static_cast<const std::int64_t*>(args.target)[r] : 0),
        t(labels ? nullptr : static_cast<const T*>(args.target) + r * args.cols) {}
  const bool labels;
  const std::int64_t label;
  const T* t;
};

// A target t becomes keep t + rest; `parameter` is what is taken off the right class and shared among all.
template <class T>
struct Smoothing {
  explicit Smoothing(const LossArgs<T>& args)
      : any(args.parameter != 0), keep(T(1) - args.parameter), rest(args.parameter / T(args.cols)) {}
  Vec<T> of(Vec<T> t) const { return keep * t + rest; }
  const bool any;
  const T keep, rest;
};

// -- elementwise -------------------------------------------------------------------------------------------

template <class T, class Formula>
static void elementwise_loss(Formula, const LossArgs<T>& args, double* sample_loss) {
  const T *pred = args.pred, *target = static_cast<const T*>(args.target);
  const Vec<T> parameter = splat(args.parameter);
  if (args.cols == 1) {  // samples side by side in a vector
    for_each_vector<T>(args.rows, [&](Index r, auto span) {
      const Vec<T> value = Formula::value(span.load(pred + r), span.load(target + r), parameter);
      for (Index i = 0; i < lanes<T> && r + i < args.rows; ++i) sample_loss[r + i] = double(value[i]);
    });
    return;
  }
  for (Index r = 0; r < args.rows; ++r) {
    const T *p = pred + r * args.cols, *t = target + r * args.cols;
    const double sum = sum_vectors<T>(args.cols, [&](Index j, auto span) {
      return Formula::value(span.load(p + j), span.load(t + j), parameter);
    });
    sample_loss[r] = sum / double(args.cols);
  }
}

// `count` elements from `first` on, of rows with the same scale.
template <class T, class Formula>
GM_INLINE void scaled_grad(Formula, const LossArgs<T>& args, Index first, Index count, T scale, T* dpred) {
  const Vec<T> parameter = splat(args.parameter);
  const T factor = T(double(scale) / double(args.cols));
  map<T>(
      count, dpred + first, [&](Vec<T> p, Vec<T> t) { return factor * Formula::grad(p, t, parameter); },
      args.pred + first, static_cast<const T*>(args.target) + first);
}

template <class T, class Formula>
static void elementwise_grad(Formula formula, const LossArgs<T>& args, T scale, const T* shares, T* dpred) {
  if (!shares) return scaled_grad(formula, args, 0, args.rows * args.cols, scale, dpred);
  if (args.cols == 1) {
    const Vec<T> parameter = splat(args.parameter);
    map<T>(
        args.rows, dpred,
        [&](Vec<T> p, Vec<T> t, Vec<T> share) {
          return Math<T>::select(share == Vec<T>{}, Vec<T>{}, share * Formula::grad(p, t, parameter));
        },
        args.pred, static_cast<const T*>(args.target), shares);
    return;
  }
  for (Index r = 0; r < args.rows; ++r) {
    if (shares[r] == 0)
      std::memset(dpred + r * args.cols, 0, sizeof(T) * std::size_t(args.cols));
    else
      scaled_grad(formula, args, r * args.cols, args.cols, shares[r], dpred);
  }
}

// -- of rows -----------------------------------------------------------------------------------------------

// log(sum_j exp z_j) - z[label], of few classes.
template <class T>
static void cross_entropy_of_few(const LossArgs<T>& args, double* sample_loss) {
  const Index cols = args.cols;
  const Smoothing<T> smoothing(args);
  by_lanes<T>(args.rows, [&](Index r, Index count) {
    const T* z = args.pred + r * cols;
    Columns<T> column(count, cols, z);
    const Vec<T> top = column.top();
    const Vec<T> all = smoothing.any ? column.map([&](Vec<T> v) { return v - top; }) : Vec<T>{};
    const Vec<T> shift = smoothing.any ? Vec<T>{} : top;
    const Vec<T> sum = column.map([&](Vec<T> v) { return Math<T>::exp(v - shift); });
    double log_sum[lanes<T>];
    for (Index i = 0; i < lanes<T>; ++i) log_sum[i] = double(sum[i]);
    for (Index i = 0; i < lanes<T>; i += lanes<double>)
      store(log_sum + i, Math<double>::log(load(log_sum + i)));
    for (Index i = 0; i < count; ++i) {
      const double picked = double(z[i * cols + RowTarget<T>(args, r + i).label]) - double(top[i]);
      sample_loss[r + i] =
          log_sum[i] - (double(smoothing.keep) * picked + double(smoothing.rest) * double(all[i]));
    }
  });
}

// scale (softmax(z) - one-hot), of few classes; a row with a share of 0 becomes zeros.
template <class T>
static void cross_entropy_grad_of_few(const LossArgs<T>& args, T scale, const T* shares, T* dz) {
  const Index cols = args.cols;
  const Smoothing<T> smoothing(args);
  by_lanes<T>(args.rows, [&](Index r, Index count) {
    Columns<T> column(count, cols, args.pred + r * cols);
    const Vec<T> factor = !shares             ? splat(scale)
                          : count == lanes<T> ? load(shares + r)
                                              : load_first(shares + r, count);
    make_softmax(column, factor);
    if (shares || smoothing.any)
      column.map([&](Vec<T> v) {
        return Math<T>::select(factor == Vec<T>{}, Vec<T>{}, v - factor * smoothing.rest);
      });
    column.store(dz + r * cols);
    for (Index i = 0; i < count; ++i)
      dz[(r + i) * cols + RowTarget<T>(args, r + i).label] -= factor[i] * smoothing.keep;
  });
}

// log(sum_j exp z_j) - z[label], or for a target t: -sum_j t_j log softmax(z)_j
template <class T>
static void cross_entropy(const LossArgs<T>& args, double* sample_loss) {
  const Index cols = args.cols;
  if (args.labels && cols <= few_columns) return cross_entropy_of_few(args, sample_loss);
  const Smoothing<T> smoothing(args);
  for (Index r = 0; r < args.rows; ++r) {
    const RowTarget<T> target(args, r);
    const T* z = args.pred + r * cols;
    const T top = row_max(cols, z);
    const double log_sum = log_of(row_exp_sum(cols, z, top));
    if (target.labels) {
      double picked = double(z[target.label]) - double(top);
      if (smoothing.any) {
        const double sum = sum_vectors<T>(cols, [&](Index j, auto span) { return span.load(z + j) - top; });
        picked = double(smoothing.keep) * picked + double(smoothing.rest) * sum;
      }
      sample_loss[r] = log_sum - picked;
    } else {
      sample_loss[r] = -sum_vectors<T>(cols, [&](Index j, auto span) {
        return smoothing.of(span.load(target.t + j)) * (span.load(z + j) - top - T(log_sum));
      });
    }
  }
}

// scale (softmax(z) - one-hot), or for a target t: scale (softmax(z) sum_j t_j - t)
template <class T>
static void cross_entropy_grad(const LossArgs<T>& args, Index r, T scale, T* dz) {
  const Index cols = args.cols;
  const RowTarget<T> target(args, r);
  const Smoothing<T> smoothing(args);
  const T* z = args.pred + r * cols;
  if (target.labels) {
    softmax_row(cols, z, dz, scale);
    if (smoothing.any)
      map<T>(cols, dz, [&](Vec<T> v) { return v - scale * smoothing.rest; }, static_cast<const T*>(dz));
    dz[target.label] -= scale * smoothing.keep;
  } else {  // dz may be the target itself: it is written once, at the end
    const T top = row_max(cols, z);
    const double weight =
        sum_vectors<T>(cols, [&](Index j, auto span) { return smoothing.of(span.load(target.t + j)); });
    const T share = T(weight / row_exp_sum(cols, z, top));
    map<T>(
        cols, dz,
        [&](Vec<T> v, Vec<T> t) { return scale * (Math<T>::exp(v - top) * share - smoothing.of(t)); }, z,
        target.t);
  }
}

// -log p[label], or -sum_j t_j log p_j, with log p at least -100
template <class T>
static void probability_loss(const LossArgs<T>& args, double* sample_loss) {
  const Index cols = args.cols;
  const Smoothing<T> smoothing(args);
  for (Index r = 0; r < args.rows; ++r) {
    const RowTarget<T> target(args, r);
    const T* p = args.pred + r * cols;
    const auto log_p = [&](Index j, auto span) {
      return clamped_log<Math<T>>(Math<T>::log(span.load(p + j)));
    };
    if (target.labels) {
      const Vec<double> value = splat(double(p[target.label]));
      double picked = clamped_log<Math<double>>(Math<double>::log(value))[0];
      if (smoothing.any)
        picked = double(smoothing.keep) * picked + double(smoothing.rest) * sum_vectors<T>(cols, log_p);
      sample_loss[r] = -picked;
    } else {
      sample_loss[r] = -sum_vectors<T>(
          cols, [&](Index j, auto span) { return smoothing.of(span.load(target.t + j)) * log_p(j, span); });
    }
  }
}

// sum_j t_j log t_j, 0 log 0 = 0: what a divergence has beyond the cross entropy
template <class T>
static void add_entropy(const LossArgs<T>& args, double* sample_loss) {
  const T* target = static_cast<const T*>(args.target);
  for (Index r = 0; r < args.rows; ++r)
    sample_loss[r] += sum_vectors<T>(args.cols, [&](Index j, auto span) {
      const Vec<T> t = span.load(target + r * args.cols + j);
      return Math<T>::select(t == Vec<T>{}, t, t * Math<T>::log(t));
    });
}

// -scale t / p, with p at least 1e-12
template <class T>
static void probability_grad(const LossArgs<T>& args, Index r, T scale, T* dp) {
  constexpr T least = T(1e-12);
  const Index cols = args.cols;
  const RowTarget<T> target(args, r);
  const Smoothing<T> smoothing(args);
  const T* p = args.pred + r * cols;
  const auto over_p = [&](Vec<T> v, Vec<T> t) { return -scale * t / (v < least ? splat(least) : v); };
  if (target.labels) {
    const T picked = p[target.label];
    if (smoothing.any)
      map<T>(cols, dp, [&](Vec<T> v) { return over_p(v, splat(smoothing.rest)); }, p);
    else
      std::memset(dp, 0, sizeof(T) * std::size_t(cols));
    dp[target.label] = -scale * (smoothing.keep + smoothing.rest) / (picked < least ? least : picked);
  } else {
    map<T>(cols, dp, [&](Vec<T> v, Vec<T> t) { return over_p(v, smoothing.of(t)); }, p, target.t);
  }
}

// The largest output but the label's; NaN is the largest.
template <class T>
GM_INLINE Index find_rival(Index cols, const T* z, Index label) {
  Index best = label == 0 ? 1 : 0;
  for (Index j = best + 1; j < cols && z[best] == z[best]; ++j)
    if (j != label && !(z[j] <= z[best])) best = j;
  return best;
}

// max(0, 1 + z[rival] - z[label])
template <class T>
static void hinge_of_classes(const LossArgs<T>& args, double* sample_loss) {
  for (Index r = 0; r < args.rows; ++r) {
    const Index label = RowTarget<T>(args, r).label;
    const T* z = args.pred + r * args.cols;
    const double missing = 1 + double(z[find_rival(args.cols, z, label)]) - double(z[label]);
    sample_loss[r] = missing <= 0 ? 0 : missing;
  }
}

// scale at the rival and -scale at the label, where the loss is not 0
template <class T>
static void hinge_of_classes_grad(const LossArgs<T>& args, Index r, T scale, T* dz) {
  const Index label = RowTarget<T>(args, r).label;
  const T* z = args.pred + r * args.cols;
  const Index rival = find_rival(args.cols, z, label);
  const T missing = 1 + z[rival] - z[label];
  const T step = missing > 0 ? scale : missing <= 0 ? T(0) : missing;  // NaN stays
  std::memset(dz, 0, sizeof(T) * std::size_t(args.cols));
  dz[rival] = step;
  dz[label] = -step;
}

// The losses of rows, by what they have in common.
GM_INLINE bool of_probabilities(Loss loss) {
  return loss == Loss::cross_entropy_probabilities || loss == Loss::kl_divergence_probabilities;
}

template <class T>
static void loss(const LossArgs<T>& args, double* sample_loss) {
  if (args.loss == Loss::hinge && args.labels) return hinge_of_classes(args, sample_loss);
  const bool done = with_elementwise_loss<Math<T>>(
      args.loss, [&](auto formula) { elementwise_loss(formula, args, sample_loss); });
  if (done) return;
  (of_probabilities(args.loss) ? probability_loss<T> : cross_entropy<T>)(args, sample_loss);
  if (args.loss == Loss::kl_divergence || args.loss == Loss::kl_divergence_probabilities)
    add_entropy(args, sample_loss);
}

template <class T>
static void loss_grad(const LossArgs<T>& args, T scale, const T* shares, T* dpred) {
  const bool classes = args.loss == Loss::hinge && args.labels;
  const bool done = !classes && with_elementwise_loss<Math<T>>(args.loss, [&](auto formula) {
    elementwise_grad(formula, args, scale, shares, dpred);
  });
  if (done) return;
  if (args.loss == Loss::cross_entropy && args.labels && args.cols <= few_columns)
    return cross_entropy_grad_of_few(args, scale, shares, dpred);
  const auto kernel = classes                       ? hinge_of_classes_grad<T>
                      : of_probabilities(args.loss) ? probability_grad<T>
                                                    : cross_entropy_grad<T>;
  for (Index r = 0; r < args.rows; ++r) {
    T* row = dpred + r * args.cols;
    if (shares && shares[r] == 0)
      std::memset(row, 0, sizeof(T) * std::size_t(args.cols));
    else
      kernel(args, r, shares ? shares[r] : scale, row);
  }
}

}  // namespace gemmule::cpu::GEMMULE_ISA
