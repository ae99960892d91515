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

// P outputs of V vectors of channels. A tap's weights are loaded once for all outputs; the image is an
// operand of the FMA itself.
template <class T, int P, int V, bool full>
GM_INLINE void depthwise_tile(const DepthwiseArgs<T>& g, Index first) {
  constexpr Index n = lanes<T>;
  const Index tail = g.channels - (V - 1) * n;
  Vec<T> acc[P][V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    const Index left = v == V - 1 ? tail : n;
    const Vec<T> start = g.bias ? load_lanes<T, full>(g.bias + v * n, left) : Vec<T>{};
#pragma GCC unroll 8
    for (int i = 0; i < P; ++i) acc[i][v] = start;
  }
  const T* weight = g.weight;
  for (Index r = 0; r < g.taps_y; ++r) {
    const T* x = g.x + first * g.x_step + r * g.tap_row;
    for (Index s = 0; s < g.taps_x; ++s, x += g.tap_col, weight += g.width) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        const Index left = v == V - 1 ? tail : n;
        const Vec<T> w = load(weight + v * n);
#pragma GCC unroll 8
        for (int i = 0; i < P; ++i) acc[i][v] += load_lanes<T, full>(x + i * g.x_step + v * n, left) * w;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < P; ++i)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      store_lanes<T, full>(g.out + (first + i) * g.out_step + v * n,
                           activate_in_register<T>(acc[i][v], g.act, g.slope), v == V - 1 ? tail : n);
}

template <class T, int P, int V, bool full>
GM_INLINE void depthwise_rest(const DepthwiseArgs<T>& g, Index first) {
  if (g.outputs - first == P) return depthwise_tile<T, P, V, full>(g, first);
  if constexpr (P > 1) depthwise_rest<T, P - 1, V, full>(g, first);
}

template <class T, int V, bool full>
GM_INLINE void depthwise_row(const DepthwiseArgs<T>& g) {
  constexpr int P =
      GEMMULE_TILE_ROWS < 6 ? GEMMULE_TILE_ROWS : 6;  // 12 accumulators, as many as hide latency
  Index i = 0;
  for (; i + P <= g.outputs; i += P) depthwise_tile<T, P, V, full>(g, i);
  depthwise_rest<T, P - 1, V, full>(g, i);
}

template <class T, int V>
static void depthwise(const DepthwiseArgs<T>& g) {
  if (g.channels == V * lanes<T>)
    depthwise_row<T, V, true>(g);
  else
    depthwise_row<T, V, false>(g);
}

// Sums over outputs for S taps side by side: dz is loaded once for all of them. The even and the odd outputs
// have sums of their own, so that few taps hide latency too.
template <class T, int S, int V, bool full>
GM_INLINE void depthwise_sums(const DepthwiseGradArgs<T>& g, Index tap) {
  constexpr Index n = lanes<T>;
  const Index tail = g.channels - (V - 1) * n;
  for (int v = 0; v < V; ++v) {
    const Index left = v == V - 1 ? tail : n;
    Vec<T> even[S] = {}, odd[S] = {};
    const T* x = g.x + tap * g.tap_col + v * n;
    const T* dz = g.dz + v * n;
    Index i = 0;
    for (; i + 2 <= g.outputs; i += 2, x += 2 * g.x_step, dz += 2 * g.dz_step) {
      const Vec<T> a = load_lanes<T, full>(dz, left), b = load_lanes<T, full>(dz + g.dz_step, left);
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s) {
        even[s] += load_lanes<T, full>(x + s * g.tap_col, left) * a;
        odd[s] += load_lanes<T, full>(x + g.x_step + s * g.tap_col, left) * b;
      }
    }
    if (i < g.outputs) {
      const Vec<T> a = load_lanes<T, full>(dz, left);
#pragma GCC unroll 8
      for (int s = 0; s < S; ++s) even[s] += load_lanes<T, full>(x + s * g.tap_col, left) * a;
    }
#pragma GCC unroll 8
    for (int s = 0; s < S; ++s) {
      T* sum = g.sums + (tap + s) * g.width + v * n;
      store(sum, load(sum) + (even[s] + odd[s]));
    }
  }
}

template <class T, int S, int V, bool full>
GM_INLINE void depthwise_sums_rest(const DepthwiseGradArgs<T>& g, Index tap) {
  if (g.taps - tap == S) return depthwise_sums<T, S, V, full>(g, tap);
  if constexpr (S > 1) depthwise_sums_rest<T, S - 1, V, full>(g, tap);
}

template <class T, int V>
static void depthwise_grad(const DepthwiseGradArgs<T>& g) {
  constexpr int S = 4;  // taps: 8 sums
  const bool full = g.channels == V * lanes<T>;
  Index tap = 0;
  for (; tap + S <= g.taps; tap += S)
    full ? depthwise_sums<T, S, V, true>(g, tap) : depthwise_sums<T, S, V, false>(g, tap);
  full ? depthwise_sums_rest<T, S - 1, V, true>(g, tap) : depthwise_sums_rest<T, S - 1, V, false>(g, tap);
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
