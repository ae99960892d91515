// Kernels on rows: softmax, sums over rows. Included by losses.inl.
#pragma once
#include "cpu/isa/loops.h"
#include "cpu/isa/math.h"
#include "cpu/isa/transpose.h"
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

// ---- rows of few columns ----

// A vector would be a fraction of one row, and ends in sums over its lanes: 32 rows of 4 classes take 1.8 us
// so, and 0.4 with a row in each lane.
inline constexpr Index few_columns = 16;

// The columns of `rows` <= lanes rows; lanes beyond hold the last row.
template <class T>
struct Columns {
  Columns(Index rows, Index cols, const T* z) : rows_(rows), cols_(cols) {
    constexpr int n = lanes<T>;
    for (Index j = 0; j < cols; j += n) {
      Vec<T> block[n];
      for (Index i = 0; i < n; ++i) {
        const T* row = z + (i < rows ? i : rows - 1) * cols + j;
        block[i] = j + n <= cols ? load(row) : load_first(row, cols - j);
      }
      transpose<T>(block);
      for (Index i = 0; i < n; ++i) at[j + i] = block[i];
    }
  }

  void store(T* h) const {
    constexpr int n = lanes<T>;
    for (Index j = 0; j < cols_; j += n) {
      Vec<T> block[n];
      for (Index i = 0; i < n; ++i) block[i] = at[j + i];
      transpose<T>(block);
      for (Index i = 0; i < rows_; ++i)
        if (j + n <= cols_)
          GEMMULE_ISA::store(h + i * cols_ + j, block[i]);
        else
          store_first(h + i * cols_ + j, block[i], cols_ - j);
    }
  }

  // Of each row its largest element; NaN is passed over.
  Vec<T> top() const {
    Vec<T> top = -Math<T>::infinity() + Vec<T>{};
    for (Index j = 0; j < cols_; ++j) top = at[j] > top ? at[j] : top;
    return top;
  }

  // f(column) in the place of every column; returns their sum.
  template <class F>
  Vec<T> map(F f) {
    Vec<T> sum{};
    for (Index j = 0; j < cols_; ++j) sum += at[j] = f(at[j]);
    return sum;
  }

  Vec<T> at[few_columns];

 private:
  Index rows_, cols_;
};

// body(r, rows) for stretches of at most a vector's lanes of rows.
template <class T, class Body>
GM_INLINE void by_lanes(Index rows, Body body) {
  for (Index r = 0; r < rows; r += lanes<T>) body(r, rows - r < lanes<T> ? rows - r : Index(lanes<T>));
}

// The softmax of each row, times its lane of `factor`.
template <class T>
GM_INLINE void make_softmax(Columns<T>& z, Vec<T> factor) {
  const Vec<T> top = z.top();
  const Vec<T> share = factor / z.map([&](Vec<T> v) { return Math<T>::exp(v - top); });
  z.map([&](Vec<T> e) { return e * share; });
}

template <class T>
static void softmax(Index rows, Index cols, const T* z, T* h) {
  if (cols <= few_columns)
    return by_lanes<T>(rows, [&](Index r, Index count) {
      Columns<T> some(count, cols, z + r * cols);
      make_softmax(some, splat(T(1)));
      some.store(h + r * cols);
    });
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
