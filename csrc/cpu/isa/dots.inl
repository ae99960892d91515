// Dots: rows of A times rows of B^T, both along the depth. Contracts: cpu/gemm_kernels.h.
#pragma once
#include "cpu/isa/gemm.inl"

namespace gemmule::cpu::GEMMULE_ISA {

// Lane i of the result: the sum of the lanes of row[i], added in one order for all i.
template <class T>
GM_INLINE Vec<T> sums_of(Vec<T> (&row)[lanes<T>]) {
  meet_by_halves<T>(row, [](Vec<T>& a, Vec<T>&, Vec<T> lower, Vec<T> upper) { a = lower + upper; });
  return row[0];
}

// Pointers to `count` rows from `first` on, `stride` apart; the last again in place of those beyond it.
template <class T, int N>
GM_INLINE void point(const T* (&rows)[N], const T* data, Index stride, Index first, Index count) {
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) rows[i] = data + (first + i < count ? first + i : count - 1) * stride;
}

// From so many vectors of depth on: 32 x 512 x 8 takes 0.90 of the time, 8 x 784 x 8 0.80, 1 x 784 x 256
// 0.85, a column of 784 elements 0.86. Square tiles load the least for their FMAs: 8 x 256 x 128 takes 1.03,
// 4 x 256 x 256 1.07, 8 x 384 x 128 1.0 (Zen 4).
template <int R, int S>
inline constexpr Index fewest_in_lines = R == S ? 24 : 16;

// sums[i * S + j]: the products of row i of a and row j of b, by lanes. Where a tile of rows is small, U
// steps at once have accumulators of their own. `in_lines`: by vectors of which the first ends after lanes<T>
// - `past` elements; the lanes turn back afterwards, so that the sums are the same to the bit. (That takes no
// time that can be measured; without it lanes would be added in another order.)
template <class T, int R, int S, int U, bool in_lines>
GM_INLINE void accumulate_dots(Index depth, Index past, const T* const (&a)[R], const T* const (&b)[S],
                               Vec<T>* sums) {
  constexpr int n = lanes<T>;
  if constexpr (U > 1)
    if (depth < 2 * n) return accumulate_dots<T, R, S, 1, in_lines>(depth, past, a, b, sums);
  Vec<T> acc[U][R * S];
#pragma GCC unroll 8
  for (int u = 0; u < U; ++u)
#pragma GCC unroll 16
    for (int i = 0; i < R * S; ++i) acc[u][i] = Vec<T>{};
  // The shorter side waits in registers; the other passes, each load of it once: two rows of 784 by 256 take
  // 9.9 us so, 14.5 where the compiler folds the loads into the FMAs.
  constexpr int few = R < S ? R : S, many = R < S ? S : R;
  const auto step = [&](auto span, Index p, Vec<T>(&into)[R* S]) __attribute__((always_inline)) {
    Vec<T> held[few];
#pragma GCC unroll 8
    for (int i = 0; i < few; ++i) held[i] = span.load((R < S ? a[i % R] : b[i % S]) + p);
#pragma GCC unroll 8
    for (int j = 0; j < many; ++j) {
      const Vec<T> passing = in_register(span.load((R < S ? b[j % S] : a[j % R]) + p));
#pragma GCC unroll 8
      for (int i = 0; i < few; ++i) into[R < S ? i * S + j : j * S + i] += held[i] * passing;
    }
  };
  Index p = 0;
  const Index whole = depth / (U * n) * (U * n);
  if (in_lines && whole > 0) {
    step(Rest<T>{past}, -past, acc[0]);
    for (p = n - past; p + U * n <= whole; p += U * n)
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u) step(Whole<T>{}, p + u * n, acc[(u + 1) % U]);
#pragma GCC unroll 8
    for (int u = 0; u + 1 < U; ++u) step(Whole<T>{}, p + u * n, acc[u + 1]);
    step(First<T>{past}, whole - past, acc[0]);
#pragma GCC unroll 16
    for (int i = 0; i < R * S; ++i) {
      const Vec<T> first = acc[0][i];
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
        acc[u][i] = lanes_from<T>(acc[u][i], u + 1 < U ? acc[(u + 1) % U][i] : first, past);
    }
    p = whole;
  }
  for (; p < whole; p += U * n)
#pragma GCC unroll 8
    for (int u = 0; u < U; ++u) step(Whole<T>{}, p + u * n, acc[u]);
  if constexpr (U > 1)
    for (; p + n <= depth; p += n) step(Whole<T>{}, p, acc[0]);
  if (p < depth) step(First<T>{depth - p}, p, acc[0]);
#pragma GCC unroll 16
  for (int i = 0; i < R * S; ++i) {
    Vec<T> sum = acc[0][i];
#pragma GCC unroll 8
    for (int u = 1; u < U; ++u) sum += acc[u][i];
    sums[i] = sum;
  }
}

// S elements again and again. By doubling: GCC takes a shuffle from few lanes to many through memory, where a
// load waits 20 cycles for a shorter store, and where it knows the mask of a masked load and that the other
// lanes are not used, it reads a whole vector.
template <class Short, int... I>
GM_INLINE auto twice(Short v, Indices<I...>) {
  return __builtin_shufflevector(v, v, I...);
}
template <class T, int S, class Short>
GM_INLINE Vec<T> repeated(Short v) {
  if constexpr (S == lanes<T>)
    return v;
  else
    return repeated<T, 2 * S>(twice(v, typename UpTo<2 * S>::type{}));
}
template <class T, int S>
GM_INLINE Vec<T> repeated(const T* p) {
  if constexpr (S == 1) {
    return splat(*p);
  } else {
    typedef T Few __attribute__((vector_size(S * sizeof(T))));
    Few few;
    std::memcpy(&few, p, sizeof few);
    return repeated<T, S, Few>(few);
  }
}

// Rows of S sums, one behind the other, become those of C.
template <class T, int R, int S>
GM_INLINE void finish_dots(const DotArgs<T>& g, T (&sums)[R * S]) {
  constexpr int n = lanes<T>;
  if (g.cols < S || g.beta != T(0)) {
    for (Index i = 0; i < g.rows; ++i)
      finish_columns(g, g.cols, sums + i * S, g.c + i * g.c_row,
                     [&](Index j, auto span) { return span.load(g.bias + j); });
    return;
  }
  // By vectors of some rows: 100 x 4 x 100 takes 0.83 of the time, 8 x 100 x 100 0.84, 97 x 1 x 97, a column
  // of a matrix, 0.67, 8 x 128 x 256 0.92 (Zen 4).
  // One expression, so that the compiler makes one FMA of it in every copy of the loop; -0 is no bias.
  for (int first = 0; first < R * S; first += n) {
    Vec<T> bias = splat(T(-0.0));
    if (g.bias) {
      if constexpr (S < n)
        bias = repeated<T, S>(g.bias);
      else
        bias = load(g.bias + first % S);
    }
    const Vec<T> z = g.alpha * load(sums + first) + bias;
    store(sums + first, activate_in_register<T>(z, g.act, g.slope));
  }
  for (Index i = 0; i < g.rows; ++i) std::memcpy(g.c + i * g.c_row, sums + i * S, S * sizeof(T));
}

template <class T, int R, int S, bool in_lines>
static void dots_of(const DotArgs<T>& g, Index past) {
  constexpr int n = lanes<T>, streams = R == 2 || S == 2 ? 8 : 4;
  constexpr int high = R < streams ? R : streams, wide = S < streams ? S : streams;
  Vec<T> lane_sums[R * S];
  for (int i = 0; i < R; i += high)
    for (int j = 0; j < S; j += wide) {
      const T *a[high], *b[wide];
      point(a, g.a, g.a_row, i, g.rows);
      point(b, g.b, g.b_row, j, g.cols);
      // Where high < R, wide == S, so that the sums of a group lie together.
      accumulate_dots<T, high, wide, R * S / (high * wide), in_lines>(g.depth, past, a, b,
                                                                      lane_sums + i * S + j * high);
    }
  T sums[R * S];
  for (int first = 0; first < R * S; first += n) {
    Vec<T> some[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) some[i] = lane_sums[first + i];
    store(sums + first, sums_of<T>(some));
  }
  if (S == 1 && g.c_row == 1)  // a column is as good as a row
    return finish_columns(g, g.rows, sums, g.c, [&](Index, auto) { return splat(*g.bias); });
  finish_dots<T, R, S>(g, sums);
}

template <class T, int R, int S>
static void dots(const DotArgs<T>& g) {
  const Index past = R > S ? into_line(g.a, g.a_row) : into_line(g.b, g.b_row);
  if (past > 0 && g.depth >= fewest_in_lines<R, S> * lanes<T>)
    dots_of<T, R, S, true>(g, past);
  else
    dots_of<T, R, S, false>(g, 0);
}

}  // namespace gemmule::cpu::GEMMULE_ISA
