// Kernels on rows: softmax, sums over rows, losses. Included by element.inl.
#pragma once
#include "core/losses.h"
#include "cpu/isa/loops.h"
#include "cpu/isa/math.h"
#include "cpu/kernels.h"

namespace gemmule::cpu::GEMMULE_ISA {

// Largest element; NaN is passed over, the exponentials bring it back.
template <class T>
GM_INLINE T row_max(Index cols, const T* z) {
  Vec<T> top = -Math<T>::infinity();
  for_each_vector<T>(cols, [&](Index j, auto span) {
    const Vec<T> v = span.keep(span.load(z + j), top);
    top = v > top ? v : top;
  });
  return max_lane<T>(top);
}

// sum exp(z - top), top = max z
template <class T>
GM_INLINE double row_exp_sum(Index cols, const T* z, T top) {
  return sum_vectors<T>(cols, [&](Index j, auto span) { return Math<T>::exp(span.load(z + j) - top); });
}

GM_INLINE double log_of(double x) { return Math<double>::log(splat(x))[0]; }

// h = factor softmax(z)
template <class T>
GM_INLINE void softmax_row(Index cols, const T* z, T* h, T factor) {
  const T top = row_max(cols, z);
  const double sum = sum_vectors<T>(cols, [&](Index j, auto span) {
    const Vec<T> e = Math<T>::exp(span.load(z + j) - top);
    span.store(h + j, e);
    return e;
  });
  const T share = T(double(factor) / sum);
  map<T>(cols, h, [&](Vec<T> e) { return e * share; }, h);
}

template <class T>
static void softmax(Index rows, Index cols, const T* z, T* h) {
  for (Index r = 0; r < rows; ++r) softmax_row(cols, z + r * cols, h + r * cols, T(1));
}

// dz = h (dh - sum_j dh_j h_j)
template <class T>
static void softmax_grad(Index rows, Index cols, const T* dh, const T* h, T* dz) {
  for (Index start = 0; start < rows * cols; start += cols) {
    const T *dh_row = dh + start, *h_row = h + start;
    const T dot = T(sum_vectors<T>(
        cols, [&](Index j, auto span) { return span.load(dh_row + j) * span.load(h_row + j); }));
    map<T>(cols, dz + start, [&](Vec<T> d, Vec<T> p) { return p * (d - dot); }, dh_row, h_row);
  }
}

// `vectors` columns of vectors at once, for as many independent chains; `last` takes those of the last. A
// column's terms are added in the same order wherever it stands.
template <int vectors, class T, class Span>
GM_INLINE void sum_columns(Index rows, const T* x, Index x_row, T* dst, bool accumulate, Span last) {
  const auto load_at = [&](const T* p, int v) __attribute__((always_inline)) {
    return v + 1 < vectors ? load(p + v * lanes<T>) : last.load(p + v * lanes<T>);
  };
  Vec<T> total[vectors];
  for (int v = 0; v < vectors; ++v) total[v] = accumulate ? load_at(dst, v) : Vec<T>{};
  for (Index start = 0; start < rows; start += 384) {
    const Index end = rows - start < 384 ? rows : start + 384;
    Vec<T> sum[vectors] = {};
    for (Index r = start; r < end; ++r)
      for (int v = 0; v < vectors; ++v) sum[v] += load_at(x + r * x_row, v);
    for (int v = 0; v < vectors; ++v) total[v] += sum[v];
  }
  for (int v = 0; v + 1 < vectors; ++v) store(dst + v * lanes<T>, total[v]);
  last.store(dst + (vectors - 1) * lanes<T>, total[vectors - 1]);
}

// The last columns, of `vectors` vectors at most.
template <int vectors, class T>
GM_INLINE void sum_last_columns(Index rows, Index cols, const T* x, Index x_row, T* dst, bool accumulate) {
  const Index left = cols - (vectors - 1) * lanes<T>;
  if constexpr (vectors > 1)
    if (left <= 0) return sum_last_columns<vectors - 1>(rows, cols, x, x_row, dst, accumulate);
  if (left == lanes<T>)
    sum_columns<vectors>(rows, x, x_row, dst, accumulate, Whole<T>{});
  else if (left > 0)
    sum_columns<vectors>(rows, x, x_row, dst, accumulate, First<T>{left});
}

template <class T>
static void sum_rows(Index rows, Index cols, const T* x, Index x_row, T* dst, bool accumulate) {
  constexpr Index wide = 4 * lanes<T>;
  Index j = 0;
  for (; j + wide <= cols; j += wide) sum_columns<4>(rows, x + j, x_row, dst + j, accumulate, Whole<T>{});
  sum_last_columns<4>(rows, cols - j, x + j, x_row, dst + j, accumulate);
}

template <class T, class Formula>
static void elementwise_loss(Formula, Index rows, Index cols, const T* pred, const T* target,
                             double* sample_loss) {
  if (cols == 1) {  // samples side by side in a vector
    for_each_vector<T>(rows, [&](Index r, auto span) {
      const Vec<T> value = Formula::value(span.load(pred + r), span.load(target + r));
      for (Index i = 0; i < lanes<T> && r + i < rows; ++i) sample_loss[r + i] = double(value[i]);
    });
    return;
  }
  for (Index r = 0; r < rows; ++r) {
    const T *p = pred + r * cols, *t = target + r * cols;
    const double sum = sum_vectors<T>(
        cols, [&](Index j, auto span) { return Formula::value(span.load(p + j), span.load(t + j)); });
    sample_loss[r] = sum / double(cols);
  }
}

// log(sum_j exp z_j) - z[label], or for a target t: -sum_j t_j log softmax(z)_j
template <class T>
static void cross_entropy(Index rows, Index cols, const T* pred, const void* target, bool labels,
                          double* sample_loss) {
  for (Index r = 0; r < rows; ++r) {
    const T* z = pred + r * cols;
    const T top = row_max(cols, z);
    const double log_sum = log_of(row_exp_sum(cols, z, top));
    if (labels) {
      sample_loss[r] = log_sum - (double(z[static_cast<const std::int64_t*>(target)[r]]) - double(top));
    } else {
      const T* t = static_cast<const T*>(target) + r * cols;
      sample_loss[r] = -sum_vectors<T>(
          cols, [&](Index j, auto span) { return span.load(t + j) * (span.load(z + j) - top - T(log_sum)); });
    }
  }
}

// scale (softmax(z) - one-hot), or for a target t: scale (softmax(z) sum_j t_j - t)
template <class T>
static void cross_entropy_grad(Index rows, Index cols, const T* pred, const void* target, bool labels,
                               T scale, T* dpred) {
  for (Index r = 0; r < rows; ++r) {
    const T* z = pred + r * cols;
    T* dz = dpred + r * cols;
    if (labels) {
      softmax_row(cols, z, dz, scale);
      dz[static_cast<const std::int64_t*>(target)[r]] -= scale;
    } else {  // dz may be the target itself: it is written once, at the end
      const T* t = static_cast<const T*>(target) + r * cols;
      const T top = row_max(cols, z);
      const double weight = sum_vectors<T>(cols, [&](Index j, auto span) { return span.load(t + j); });
      const T share = T(weight / row_exp_sum(cols, z, top));
      map<T>(cols, dz, [&](Vec<T> v, Vec<T> w) { return scale * (Math<T>::exp(v - top) * share - w); }, z, t);
    }
  }
}

// -log p[label], or -sum_j t_j log p_j, with log p at least -100
template <class T>
static void probability_loss(Index rows, Index cols, const T* pred, const void* target, bool labels,
                             double* sample_loss) {
  for (Index r = 0; r < rows; ++r) {
    const T* p = pred + r * cols;
    if (labels) {
      const Vec<double> picked = splat(double(p[static_cast<const std::int64_t*>(target)[r]]));
      sample_loss[r] = -clamped_log<Math<double>>(Math<double>::log(picked))[0];
    } else {
      const T* t = static_cast<const T*>(target) + r * cols;
      sample_loss[r] = -sum_vectors<T>(cols, [&](Index j, auto span) {
        return span.load(t + j) * clamped_log<Math<T>>(Math<T>::log(span.load(p + j)));
      });
    }
  }
}

// -scale t / p, with p at least 1e-12
template <class T>
static void probability_grad(Index rows, Index cols, const T* pred, const void* target, bool labels, T scale,
                             T* dpred) {
  constexpr T least = T(1e-12);
  for (Index r = 0; r < rows; ++r) {
    const T* p = pred + r * cols;
    T* dp = dpred + r * cols;
    if (labels) {
      const std::int64_t label = static_cast<const std::int64_t*>(target)[r];
      const T picked = p[label];
      std::memset(dp, 0, sizeof(T) * std::size_t(cols));
      dp[label] = -scale / (picked < least ? least : picked);
    } else {
      const T* t = static_cast<const T*>(target) + r * cols;
      map<T>(cols, dp, [&](Vec<T> v, Vec<T> w) { return -scale * w / (v < least ? splat(least) : v); }, p, t);
    }
  }
}

template <class T>
static void loss(Loss loss, Index rows, Index cols, const T* pred, const void* target, bool labels,
                 double* sample_loss) {
  const bool done = with_elementwise_loss<Math<T>>(loss, [&](auto formula) {
    elementwise_loss(formula, rows, cols, pred, static_cast<const T*>(target), sample_loss);
  });
  if (done) return;
  const auto kernel = loss == Loss::cross_entropy ? cross_entropy<T> : probability_loss<T>;
  kernel(rows, cols, pred, target, labels, sample_loss);
}

template <class T>
static void loss_grad(Loss loss, Index rows, Index cols, const T* pred, const void* target, bool labels,
                      T scale, T* dpred) {
  const bool done = with_elementwise_loss<Math<T>>(loss, [&](auto formula) {
    const T factor = T(double(scale) / double(cols));
    map<T>(
        rows * cols, dpred, [&](Vec<T> p, Vec<T> t) { return factor * decltype(formula)::grad(p, t); }, pred,
        static_cast<const T*>(target));
  });
  if (done) return;
  const auto kernel = loss == Loss::cross_entropy ? cross_entropy_grad<T> : probability_grad<T>;
  kernel(rows, cols, pred, target, labels, scale, dpred);
}

}  // namespace gemmule::cpu::GEMMULE_ISA
