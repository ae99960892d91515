// Outer products and sums of a few: so little depth that writing C is what takes the time. Contracts:
// cpu/gemm_kernels.h.
#pragma once
#include "cpu/isa/gemm.inl"

namespace gemmule::cpu::GEMMULE_ISA {

// A row of C after the other, from end to end, as write streams are followed; all stores but the first begin
// with a line, as NumPy's rows do not. Four rows at a time 512 x 512 x 1 takes 19 us and 11 so, 1024 x 1024 x
// 1 74 and 44, 256 x 784 x 2 16 and 10, 512 x 512 x 4 29 and 24, 1024 x 1024 x 6 188 and 143, but 256 x 784 x
// 6 27 and 27, 10 x 2048 x 6 3.8 and 5.1 (Zen 4). `fetches`: lines of C, for one that comes from memory: 4096
// x 1024 x 2 takes 300 us so, 370 to 450 without; 1024 x 1024 x 2 55 and 52.
template <class T, int K, bool fetches, bool plain>
GM_INLINE void outer_rows(const TileArgs<T>& g, Index rows) {
  constexpr int line = int(in_a_line<T>), lines_ahead = 8;
  const T* b[K];
#pragma GCC unroll 4
  for (int p = 0; p < K; ++p) b[p] = g.b + p * g.b_step;
  const Index cols = g.cols;
  for (Index i = 0; i < rows; ++i) {
    Vec<T> a[K];
#pragma GCC unroll 4
    for (int p = 0; p < K; ++p) a[p] = splat(g.a[i * g.a_row + p * g.a_step]);
    T* c = g.c + i * g.c_row;
    const auto make = [&](Index j, auto span) __attribute__((always_inline)) {
      Vec<T> z = a[0] * span.load(b[0] + j);
#pragma GCC unroll 4
      for (int p = 1; p < K; ++p) z += a[p] * span.load(b[p] + j);
      if constexpr (!plain) {
        z *= g.alpha;
        if (g.beta != T(0)) z += g.beta * span.load(c + j);
        if (g.bias) z += span.load(g.bias + j);
        z = activate_in_register<T>(z, g.act, g.slope);
      }
      if constexpr (fetches) __builtin_prefetch(c + j + lines_ahead * line, 1);
      span.store(c + j, z);
    };
    for_each_vector_from<T>(before_line(c), cols, make);
  }
}
template <class T, int K>
static void outer(const TileArgs<T>& g, Index rows) {
  const bool plain = g.alpha == T(1) && g.beta == T(0) && !g.bias && g.act == Act::identity;
  if (!plain)
    outer_rows<T, K, false, false>(g, rows);
  else if (g.fetch)
    outer_rows<T, K, true, true>(g, rows);
  else
    outer_rows<T, K, false, true>(g, rows);
}

template <class T, int K>
constexpr void fill_outer(SkinnyKernels<T>& table) {
  table.outer[K - 1] = outer<T, K>;
  if constexpr (K > 1) fill_outer<T, K - 1>(table);
}

}  // namespace gemmule::cpu::GEMMULE_ISA
