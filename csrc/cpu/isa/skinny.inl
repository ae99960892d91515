// Kernels for products with few rows, few columns or little depth, which read every operand as it lies.
// Contracts: cpu/kernels.h.
#pragma once
#include "cpu/isa/gemm.inl"
#include "cpu/isa/loops.h"

namespace gemmule::cpu::GEMMULE_ISA {

// ---- strips: a few rows of A times B row by row ----

// R x V accumulators, a register for each load of B and one to broadcast into.
template <int R>
inline constexpr int strip_vectors = [] {
  int vectors = 1;
  while (vectors < 8 && (R + 1) * 2 * vectors < GEMMULE_REGISTERS) vectors *= 2;
  return vectors;
}();

template <class T, int R, int V, bool full>
GM_INLINE void strip_block(const TileArgs<T>& g) {
  Vec<T> acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) acc[i][v] = Vec<T>{};
  const T* a = g.a;
  const T* b = g.b;
  const Index a_row = g.a_row, a_step = g.a_step, b_step = g.b_step;
  for (Index p = g.depth; p > 0; --p) {
    Vec<T> bv[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) bv[v] = full ? load(b + v * lanes<T>) : load_first(b, g.cols);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const T ai = a[i * a_row];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) acc[i][v] += ai * bv[v];
    }
    a += a_step;
    b += b_step;
  }
  finish_tile<T, R, V, full>(g, acc);
}

// Blocks of V vectors from column 0 on while they fit, then of half as many; `g` moves to what is left.
template <class T, int R, int V>
GM_INLINE void strip_blocks(TileArgs<T>& g) {
  constexpr Index width = V * lanes<T>;
  while (g.cols >= width) {
    TileArgs<T> block = g;
    block.cols = width;
    strip_block<T, R, V, true>(block);
    g.b += width;
    g.c += width;
    if (g.bias) g.bias += width;
    g.cols -= width;
  }
  if constexpr (V > 1)
    strip_blocks<T, R, V / 2>(g);
  else if (g.cols > 0)
    strip_block<T, R, 1, false>(g);
}

template <class T, int R>
static void strip(const TileArgs<T>& g) {
  TileArgs<T> rest = g;
  strip_blocks<T, R, strip_vectors<R>>(rest);
}

// ---- dots: rows of A times rows of B^T ----

// Lane i of the result: the sum of the lanes of row[i], added in one order for all i.
template <class T>
GM_INLINE Vec<T> sums_of(Vec<T> (&row)[lanes<T>]) {
  using Order = typename UpTo<lanes<T>>::type;
#pragma GCC unroll 4
  for (int half = lanes<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i)
      row[i] = interleave<T, 0>(row[i], row[i + half], Order{}) +
               interleave<T, 1>(row[i], row[i + half], Order{});
  return row[0];
}

// Row i of `count`, `stride` apart. Rows of a whole tile are reached from every fourth, so that the addresses
// fit the registers; a tile at the edge reads its last row again in place of those it lacks.
template <class T, int N, bool whole>
struct Rows {
  Rows(const T* data, Index stride, Index count) : step(stride) {
    for (int i = 0; i < size; ++i) at[i] = data + (whole ? 4 * i : i < count ? i : count - 1) * stride;
  }
  const T* operator[](int i) const { return whole ? at[i / 4] + i % 4 * step : at[i]; }
  static constexpr int size = whole ? (N + 3) / 4 : N;
  const T* at[size];
  Index step;
};

template <class T, int R, int S, bool whole>
GM_INLINE void dots_of(const DotArgs<T>& g) {
  constexpr int n = lanes<T>;
  const Rows<T, R, whole> a(g.a, g.a_row, g.rows);
  const Rows<T, S, whole> b(g.b, g.b_row, g.cols);
  Vec<T> acc[R * S];
#pragma GCC unroll 32
  for (int i = 0; i < R * S; ++i) acc[i] = Vec<T>{};
  const auto step = [&](auto span, Index p) __attribute__((always_inline)) {
    Vec<T> bv[S];
#pragma GCC unroll 16
    for (int j = 0; j < S; ++j) bv[j] = span.load(b[j] + p);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const Vec<T> av = span.load(a[i] + p);
#pragma GCC unroll 16
      for (int j = 0; j < S; ++j) acc[i * S + j] += av * bv[j];
    }
  };
  Index p = 0;
  for (; p + n <= g.depth; p += n) step(Whole<T>{}, p);
  if (p < g.depth) step(First<T>{g.depth - p}, p);

  T sums[R * S];
#pragma GCC unroll 8
  for (int first = 0; first < R * S; first += n) {
    Vec<T> some[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) some[i] = acc[first + i];
    store(sums + first, sums_of<T>(some));
  }
  for (Index i = 0; i < g.rows; ++i)
    for_each_vector<T>(g.cols, [&](Index j, auto span) {
      T* c = g.c + i * g.c_row + j;
      Vec<T> z = g.alpha * span.load(sums + i * S + j);
      if (g.beta != T(0)) z += g.beta * span.load(c);
      if (g.bias) z += span.load(g.bias + j);
      span.store(c, activate_in_register<T>(z, g.act, g.slope));
    });
}

template <class T, int R, int S>
static void dots(const DotArgs<T>& g) {
  if (g.rows == R && g.cols == S)
    dots_of<T, R, S, true>(g);
  else
    dots_of<T, R, S, false>(g);
}

// ---- table ----

template <class T, int R>
constexpr void fill_strips(SkinnyKernels<T>& table) {
  table.strip[R - 1] = strip<T, R>;
  if constexpr (R > 1) fill_strips<T, R - 1>(table);
}

template <class T, int shape, int R>
constexpr void fill_dots(SkinnyKernels<T>& table) {
  table.dots[shape] = dots<T, R, GEMMULE_REGISTERS / 2 / R>;
  if constexpr (2 * R <= GEMMULE_REGISTERS / 2) fill_dots<T, shape + 1, 2 * R>(table);
}

template <class T>
constexpr SkinnyKernels<T> skinny_kernels() {
  SkinnyKernels<T> table = {};
  table.strip_rows = GEMMULE_STRIP_ROWS;
  table.dots_size = GEMMULE_REGISTERS / 2;
  fill_strips<T, GEMMULE_STRIP_ROWS>(table);
  fill_dots<T, 0, 1>(table);
  return table;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
