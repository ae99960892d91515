// Kernels of depthwise convolutions: every channel for itself, channels side by side in a vector. Contracts:
// cpu/kernels.h.
#pragma once
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
  return table;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
