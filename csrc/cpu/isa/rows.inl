// Kernels on rows: softmax, sums over rows. Included by losses.inl.
#pragma once
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

}  // namespace gemmule::cpu::GEMMULE_ISA
