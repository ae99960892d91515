// Kernels for products with few rows, few columns or little depth, which read every operand as it lies.
// Contracts: cpu/gemm_kernels.h.
#pragma once
#include "cpu/isa/dots.inl"
#include "cpu/isa/outer.inl"
#include "cpu/isa/strips.inl"

namespace gemmule::cpu::GEMMULE_ISA {

// ---- narrow: many rows of A times a B of a vector or two a row ----

template <class T, int R, int V>
GM_INLINE void multiply_narrow(const TileArgs<T>& g, const T* a, Vec<T> (&acc)[R][V]) {
  const Index a_row = g.a_row;
  const T* b = g.b;
  for (Index p = 0; p < g.depth; ++p, b += g.b_step)
    multiply_step<T, R, V>(acc, b, [&](int i) { return a[i * a_row + p]; });
}

// Rows that end where a vector does, or behind which the next begins and is still to be written: all vectors
// whole. 200 rows of 10 by a depth of 2 take 0.4 us so, 1.0 with the ends of rows stored apart. The bias
// waits in registers; -0 is none.
template <class T, int R, int V>
GM_INLINE void narrow_rows(const TileArgs<T>& g, Index first, const Vec<T> (&bias)[V]) {
  Vec<T> acc[R][V] = {};
  multiply_narrow<T, R, V>(g, g.a + first * g.a_row, acc);
  T* c = g.c + first * g.c_row;
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v)
      store(c + i * g.c_row + v * lanes<T>, activate_in_register<T>(acc[i][v] + bias[v], g.act, g.slope));
}

// R rows at a time, then half as many, whose ends are exact.
template <class T, int R, int V, bool full>
GM_INLINE void narrow_ends(const TileArgs<T>& g, Index begin, Index end) {
  for (; begin + R <= end; begin += R) {
    Vec<T> acc[R][V] = {};
    multiply_narrow<T, R, V>(g, g.a + begin * g.a_row, acc);
    finish_tile<T, R, V, full>(g, g.c + begin * g.c_row, acc);
  }
  if constexpr (R > 1) narrow_ends<T, R / 2, V, full>(g, begin, end);
}

// Eight chains hide an FMA's latency of four cycles; SSE and AVX2 have no registers for 8 x 2.
template <int V>
inline constexpr int narrow_height = GEMMULE_REGISTERS >= 32 ? 8 : 8 / V;

template <class T, int V>
static void narrow(const TileArgs<T>& args, Index rows) {
  const TileArgs<T> g = args;  // which no store can change, as far as the compiler knows
  constexpr int R = narrow_height<V>;
  const Index beyond = V * lanes<T> - g.cols;
  // Rows at the end that would write beyond it, rounded up: fewer than R chains take as long as R. Where
  // their number is no multiple rows are made twice instead: 32 x 10 x 128 takes 1.18 us and not 1.43,
  // 64 2.27 and 2.55 (Zen 4).
  const Index exact = ((beyond + g.cols - 1) / g.cols + R - 1) / R * R, whole = rows - exact;
  if (g.alpha != T(1) || g.beta != T(0) || (beyond > 0 && g.c_row != g.cols) || whole < R)
    return beyond == 0 ? narrow_ends<T, R, V, true>(g, 0, rows) : narrow_ends<T, R, V, false>(g, 0, rows);
  Vec<T> bias[V];
#pragma GCC unroll 2
  for (int v = 0; v < V; ++v) {
    const Index left = g.cols - v * lanes<T>;
    bias[v] = !g.bias           ? splat(T(-0.0))
              : left < lanes<T> ? load_first(g.bias + v * lanes<T>, left)
                                : load(g.bias + v * lanes<T>);
  }
  Index i = 0;
  for (; i + R <= whole; i += R) narrow_rows<T, R, V>(g, i, bias);
  if (i < whole) narrow_rows<T, R, V>(g, whole - R, bias);
  if (beyond > 0) narrow_ends<T, R, V, false>(g, whole, rows);
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
  fill_outer<T, max_outer_depth>(table);
  table.narrow[0] = narrow<T, 1>;
  table.narrow[1] = narrow<T, 2>;
  return table;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
