// Kernels of depthwise convolutions: every channel for itself, channels side by side in a vector. Contracts:
// cpu/kernels.h.
#pragma once
#include <type_traits>

#include "cpu/isa/gemm.inl"
#include "cpu/isa/vec.h"

namespace gemmule::cpu::GEMMULE_ISA {

// The first `n` lanes of a vector that may be the last, or all.
template <class T, bool full>
GM_INLINE Vec<T> load_lanes(const T* p, Index n) {
  if constexpr (full)
    return load(p);
  else
    return n >= lanes<T> ? load(p) : load_first(p, n);
}
template <class T, bool full>
GM_INLINE void store_lanes(T* p, Vec<T> v, Index n) {
  if (full || n >= lanes<T>)
    store(p, v);
  else
    store_first(p, v, n);
}

// P outputs of V vectors of channels. A tap's weights are loaded once for all outputs. Where three taps move
// from pixel to pixel as outputs do (`slides`), so is a pixel for all three: of images that begin within a
// cache line a load is two, and they are what a tap takes.
template <class T, int P, int V, bool full, bool slides>
GM_INLINE void depthwise_tile(const DepthwiseArgs<T>& g, Index first) {
  constexpr Index n = lanes<T>;
  const Index tail = g.channels - (V - 1) * n;
  Vec<T> acc[P][V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const Index left = v == V - 1 ? tail : n;
    const Vec<T> start = g.bias ? load_lanes<T, full>(g.bias + v * n, left) : Vec<T>{};
#pragma GCC unroll 16
    for (int i = 0; i < P; ++i) acc[i][v] = start;
  }
  for (Index r = 0; r < g.taps_y; ++r) {
    const T* weight = g.weight + r * g.weight_row;
    const T* x = g.x + first * g.x_step + r * g.tap_row;
    if constexpr (slides) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const Index left = v == V - 1 ? tail : n;
        const Vec<T> w[3] = {load(weight + v * n), load(weight + g.width + v * n),
                             load(weight + 2 * g.width + v * n)};
        const T* pixel = x + v * n;
#pragma GCC unroll 16
        for (int j = 0; j < P + 2; ++j, pixel += g.x_step) {
          const Vec<T> here = load_lanes<T, full>(pixel, left);
#pragma GCC unroll 4
          for (int s = 0; s < 3; ++s)
            if (j >= s && j - s < P) acc[j - s][v] += here * w[s];
        }
      }
    } else {
      for (Index s = 0; s < g.taps_x; ++s, x += g.tap_col, weight += g.width) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Index left = v == V - 1 ? tail : n;
          const Vec<T> w = load(weight + v * n);
#pragma GCC unroll 16
          for (int i = 0; i < P; ++i) acc[i][v] += load_lanes<T, full>(x + i * g.x_step + v * n, left) * w;
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      store_lanes<T, full>(g.out + (first + i) * g.out_step + v * n,
                           activate_in_register<T>(acc[i][v], g.act, g.slope), v == V - 1 ? tail : n);
}

template <class T, int P, int V, bool full, bool slides>
GM_INLINE void depthwise_tiles(const DepthwiseArgs<T>& g, Index first, Index count, Index height) {
  if (height == P) {
    for (; count > 0; --count, first += P) depthwise_tile<T, P, V, full, slides>(g, first);
    return;
  }
  if constexpr (P > 1) depthwise_tiles<T, P - 1, V, full, slides>(g, first, count, height);
}

// In tiles whose heights differ by one at most.
template <class T, int V, bool full, bool slides>
GM_INLINE void depthwise_row(const DepthwiseArgs<T>& g) {
  constexpr int P =
      GEMMULE_TILE_ROWS < 8 ? GEMMULE_TILE_ROWS : 8;  // of 2 vectors: 12 sums and more hide latency
  const Index tiles = (g.outputs + P - 1) / P, height = g.outputs / tiles, higher = g.outputs % tiles;
  if (higher > 0) depthwise_tiles<T, P, V, full, slides>(g, 0, higher, height + 1);
  depthwise_tiles<T, P, V, full, slides>(g, higher * (height + 1), tiles - higher, height);
}

template <class T, int V>
static void depthwise(const DepthwiseArgs<T>& g) {
  if (g.channels != V * lanes<T>)
    depthwise_row<T, V, false, false>(g);
  else if (g.taps_x == 3 && g.tap_col == g.x_step)
    depthwise_row<T, V, true, true>(g);
  else
    depthwise_row<T, V, true, false>(g);
}

// ---- 3 x 3 windows that move by a pixel ----

// Q rows of P outputs of one vector of channels. A pixel is loaded once for all that it is in, up to six
// outputs; three of its row's weights, or six, stay in registers with 16 sums (8 of 16 registers).
template <class T, int P, int Q, bool full>
GM_INLINE void three_by_three(const DepthwiseRowsArgs<T>& g, Index first, Index c, Index left) {
  Vec<T> acc[Q][P];
  const Vec<T> start = g.bias ? load_lanes<T, full>(g.bias + c, left) : Vec<T>{};
#pragma GCC unroll 2
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) acc[q][i] = start;
  const T* const weight = g.weight + c / g.width * 9 * g.width + c % g.width;
  const bool before = g.before || first > 0, after = g.after || first + P < g.outputs;
#pragma GCC unroll 4
  for (int r = 0; r < Q + 2; ++r) {
    if (!g.x[r]) continue;
    Vec<T> w[Q][3];
#pragma GCC unroll 2
    for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
      for (int s = 0; s < 3; ++s)
        if (r >= q && r - q < 3) w[q][s] = load(weight + (3 * (r - q) + s) * g.width);
    const T* const row = g.x[r] + first * g.x_step + c;
    const auto add = [&](int j) {
      const Vec<T> here = load_lanes<T, full>(row + j * g.x_step, left);
#pragma GCC unroll 2
      for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (int s = 0; s < 3; ++s)
          if (r >= q && r - q < 3 && j >= s && j - s < P) acc[q][j - s] += here * w[q][s];
    };
    if (before) add(0);
#pragma GCC unroll 8
    for (int j = 1; j <= P; ++j) add(j);
    if (after) add(P + 1);
  }
#pragma GCC unroll 2
  for (int q = 0; q < Q; ++q)
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i)
      store_lanes<T, full>(g.out + q * g.out_row + (first + i) * g.out_step + c,
                           activate_in_register<T>(acc[q][i], g.act, g.slope), left);
}

// All channels of some outputs before the next: the image is read from end to end.
template <class T, int P, int Q>
GM_INLINE void three_by_three_tile(const DepthwiseRowsArgs<T>& g, Index first) {
  constexpr Index n = lanes<T>;
  Index c = 0;
  for (; c + n <= g.channels; c += n) three_by_three<T, P, Q, true>(g, first, c, n);
  if (c < g.channels) three_by_three<T, P, Q, false>(g, first, c, g.channels - c);
}

// In tiles of P outputs or one less; where those are too many, the last begins earlier and makes some again.
template <class T, int Q>
GM_INLINE void three_by_three_rows(const DepthwiseRowsArgs<T>& g) {
  constexpr Index P = GEMMULE_REGISTERS >= 32 ? 8 : 4, half = P / 2;
  const Index tiles = (g.outputs + P - 1) / P;
  if (g.outputs >= P - 1)
    for (Index t = 0, first; t < tiles; ++t) {
      first = g.outputs * t / tiles;
      if (g.outputs * (t + 1) / tiles - first == P)
        three_by_three_tile<T, P, Q>(g, first);
      else
        three_by_three_tile<T, P - 1, Q>(g, first < g.outputs - (P - 1) ? first : g.outputs - (P - 1));
    }
  else if (g.outputs >= half)
    for (Index first = 0;; first = g.outputs - half) {
      three_by_three_tile<T, half, Q>(g, first);
      if (first + half == g.outputs) break;
    }
  else
    for (Index first = 0; first < g.outputs; ++first) three_by_three_tile<T, 1, Q>(g, first);
}

template <class T>
static void depthwise_rows_of_three(const DepthwiseRowsArgs<T>& g) {
  g.rows == 2 ? three_by_three_rows<T, 2>(g) : three_by_three_rows<T, 1>(g);
}

// ---- the gradient of the weights ----

// Sums over outputs for S taps side by side: dz is loaded once for all of them. The even and the odd outputs
// have sums of their own, so that few taps hide latency too.
template <class T, int S, bool full>
GM_INLINE void depthwise_sums(const DepthwiseGradArgs<T>& g, const T* x, T* sums, const T* dz, Index left) {
  Vec<T> even[S] = {}, odd[S] = {};
  Index i = 0;
  for (; i + 2 <= g.outputs; i += 2, x += 2 * g.x_step, dz += 2 * g.dz_step) {
    const Vec<T> a = load_lanes<T, full>(dz, left), b = load_lanes<T, full>(dz + g.dz_step, left);
#pragma GCC unroll 16
    for (int s = 0; s < S; ++s) {
      even[s] += load_lanes<T, full>(x + s * g.tap_col, left) * a;
      odd[s] += load_lanes<T, full>(x + g.x_step + s * g.tap_col, left) * b;
    }
  }
  if (i < g.outputs) {
    const Vec<T> a = load_lanes<T, full>(dz, left);
#pragma GCC unroll 16
    for (int s = 0; s < S; ++s) even[s] += load_lanes<T, full>(x + s * g.tap_col, left) * a;
  }
#pragma GCC unroll 16
  for (int s = 0; s < S; ++s) {
    T* sum = sums + s * g.width;
    store(sum, load(sum) + (even[s] + odd[s]));
  }
}

template <class T, int S, bool full>
GM_INLINE void depthwise_sums_rest(const DepthwiseGradArgs<T>& g, Index taps, const T* x, T* sums,
                                   const T* dz, Index left) {
  if (taps == S) return depthwise_sums<T, S, full>(g, x, sums, dz, left);
  if constexpr (S > 1) depthwise_sums_rest<T, S - 1, full>(g, taps, x, sums, dz, left);
}

template <class T, int V, bool full>
GM_INLINE void depthwise_grad_rows(const DepthwiseGradArgs<T>& g) {
  constexpr Index n = lanes<T>, S = 4;  // taps: 8 sums
  for (int v = 0; v < V; ++v) {
    const Index left = v == V - 1 ? g.channels - (V - 1) * n : n;
    for (Index r = 0; r < g.rows; ++r) {
      const T *x = g.x + r * g.tap_row + v * n, *dz = g.dz + v * n;
      T* sums = g.sums + r * g.sums_row + v * n;
      Index taps = g.taps;
      for (; taps >= S; taps -= S, x += S * g.tap_col, sums += S * g.width)
        depthwise_sums<T, S, full>(g, x, sums, dz, left);
      depthwise_sums_rest<T, S - 1, full>(g, taps, x, sums, dz, left);
    }
  }
}

template <class T, int V>
static void depthwise_grad(const DepthwiseGradArgs<T>& g) {
  g.channels == V* lanes<T> ? depthwise_grad_rows<T, V, true>(g) : depthwise_grad_rows<T, V, false>(g);
}

// The nine sums of one vector of channels, over Q rows of `count` outputs, two at the least. Rows lo to hi of
// the four are inside the image. A pixel is loaded once for the three outputs of a row that meet it, whose
// gradients wait in registers; where the ends of a row lack some, nothing is multiplied.
template <class T, int Q, int lo, int hi, bool full>
GM_INLINE void three_by_three_sums(const DepthwiseRowsGradArgs<T>& g, Index row, Index first, Index count,
                                   Index c, Index left) {
  T* const sums = g.sums + c / g.width * 9 * g.width + c % g.width;
  const T *x[Q + 2], *dz[Q];
#pragma GCC unroll 4
  for (int r = lo; r < hi; ++r) x[r] = g.x[row + r] + first * g.x_step + c;
#pragma GCC unroll 2
  for (int q = 0; q < Q; ++q) dz[q] = g.dz + (row + q) * g.dz_row + first * g.dz_step + c;
  Vec<T> acc[3][3], d[Q][3];
#pragma GCC unroll 4
  for (int r = 0; r < 3; ++r)
#pragma GCC unroll 4
    for (int s = 0; s < 3; ++s) acc[r][s] = load(sums + (3 * r + s) * g.width);
  // Column j of the image meets outputs j - s: those of taps `from` to `to`.
  const auto column = [&](Index j, auto from, auto to) {
    if constexpr (from == 0)
#pragma GCC unroll 2
      for (int q = 0; q < Q; ++q) d[q][0] = load_lanes<T, full>(dz[q] + j * g.dz_step, left);
#pragma GCC unroll 4
    for (int r = lo; r < hi; ++r) {
      const Vec<T> here = load_lanes<T, full>(x[r] + j * g.x_step, left);
#pragma GCC unroll 2
      for (int q = 0; q < Q; ++q)
#pragma GCC unroll 4
        for (int s = 0; s < 3; ++s)
          if (s >= from && s < to && r >= q && r - q < 3) acc[r - q][s] += here * d[q][s];
    }
  };
  const auto move = [&] {
#pragma GCC unroll 2
    for (int q = 0; q < Q; ++q) d[q][2] = d[q][1], d[q][1] = d[q][0];
  };
  using std::integral_constant;
  constexpr integral_constant<int, 0> none;
  constexpr integral_constant<int, 1> one;
  constexpr integral_constant<int, 2> two;
  constexpr integral_constant<int, 3> three;
  if (g.before || first > 0) {
    column(0, none, one);
  } else {
#pragma GCC unroll 2
    for (int q = 0; q < Q; ++q) d[q][0] = load_lanes<T, full>(dz[q], left);
  }
  move();
  column(1, none, two);
  move();
#pragma GCC unroll 3
  for (Index j = 2; j < count; ++j) {
    column(j, none, three);
    move();
  }
  column(count, one, three);
  move();
  if (g.after || first + count < g.outputs) column(count + 1, two, three);
#pragma GCC unroll 4
  for (int r = 0; r < 3; ++r)
#pragma GCC unroll 4
    for (int s = 0; s < 3; ++s) store(sums + (3 * r + s) * g.width, acc[r][s]);
}

template <class T, int Q, int lo, int hi>
GM_INLINE void three_by_three_sums_of_rows(const DepthwiseRowsGradArgs<T>& g, Index row, Index first,
                                           Index count) {
  constexpr Index n = lanes<T>;
  Index c = 0;
  for (; c + n <= g.channels; c += n) three_by_three_sums<T, Q, lo, hi, true>(g, row, first, count, c, n);
  if (c < g.channels) three_by_three_sums<T, Q, lo, hi, false>(g, row, first, count, c, g.channels - c);
}
template <class T, int Q>
GM_INLINE void three_by_three_sums_inside(const DepthwiseRowsGradArgs<T>& g, Index row, Index first,
                                          Index count) {
  const bool top = g.x[row], bottom = g.x[row + Q + 1];
  if (top && bottom) return three_by_three_sums_of_rows<T, Q, 0, Q + 2>(g, row, first, count);
  if (bottom) return three_by_three_sums_of_rows<T, Q, 1, Q + 2>(g, row, first, count);
  if (top) return three_by_three_sums_of_rows<T, Q, 0, Q + 1>(g, row, first, count);
  three_by_three_sums_of_rows<T, Q, 1, Q + 1>(g, row, first, count);
}

// All channels of some outputs, a page of them, before the next: both images are read from end to end. Two
// rows at once take 16 registers for sums, gradients and a pixel.
template <class T>
static void depthwise_sums_of_three(const DepthwiseRowsGradArgs<T>& g) {
  const Index page = 4096 / (g.channels * Index(sizeof(T))), most = page > 8 ? page : 8;
  const Index chunks = (g.outputs + most - 1) / most;
  for (Index i = 0; i < chunks; ++i) {
    const Index first = g.outputs * i / chunks, count = g.outputs * (i + 1) / chunks - first;
    if (GEMMULE_REGISTERS >= 32 && g.rows == 2)
      three_by_three_sums_inside<T, 2>(g, 0, first, count);
    else
      for (Index row = 0; row < g.rows; ++row) three_by_three_sums_inside<T, 1>(g, row, first, count);
  }
}

template <class T, int V>
constexpr void fill_depthwise(DepthwiseKernels<T>& table) {
  table.forward[V - 1] = depthwise<T, V>;
  table.weights[V - 1] = depthwise_grad<T, V>;
  if constexpr (V > 1) fill_depthwise<T, V - 1>(table);
}

template <class T>
constexpr DepthwiseKernels<T> depthwise_kernels() {
  DepthwiseKernels<T> table = {};
  fill_depthwise<T, GEMMULE_TILE_VECTORS>(table);
  table.rows_of_three = depthwise_rows_of_three<T>;
  table.weights_of_three = depthwise_sums_of_three<T>;
  return table;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
