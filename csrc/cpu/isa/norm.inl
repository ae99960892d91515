// Normalization over the batch: sums over the rows of a matrix, and formulas with a constant for each column.
#pragma once
#include <type_traits>

#include "core/activations.h"
#include "cpu/isa/loops.h"
#include "cpu/isa/math.h"
#include "cpu/kernels.h"

namespace gemmule::cpu::GEMMULE_ISA {

// body(formula) for the activations that cost one instruction.
template <class T, class Body>
GM_INLINE void with_cheap_activation(Act act, const Body& body) {
  if (act == Act::relu)
    body(Relu<Math<T>>{});
  else if (act == Act::leaky_relu)
    body(LeakyRelu<Math<T>>{});
  else
    body(Identity<Math<T>>{});
}

// body(j, span...) for the columns, four vectors at once: their sums are as many chains.
template <class T, class Body>
GM_INLINE void for_column_blocks(Index cols, const Body& body) {
  Index j = 0;
  for (; j + 4 * lanes<T> <= cols; j += 4 * lanes<T>) body(j, std::integral_constant<int, 4>{}, Whole<T>{});
  for (; j + lanes<T> <= cols; j += lanes<T>) body(j, std::integral_constant<int, 1>{}, Whole<T>{});
  if (j < cols) body(j, std::integral_constant<int, 1>{}, First<T>{cols - j});
}

template <class T>
static void square_sums(Index rows, Index cols, const T* x, const T* mean, T* sums, T* squares,
                        bool accumulate) {
  for_column_blocks<T>(cols, [&](Index j, auto vectors, auto span) __attribute__((always_inline)) {
    constexpr int n = decltype(vectors)::value;
    Vec<T> sum[n] = {}, square[n] = {}, middle[n];
    for (int v = 0; v < n; ++v) middle[v] = span.load(mean + j + v * lanes<T>);
    for (Index r = 0; r < rows; ++r)
      for (int v = 0; v < n; ++v) {
        const Vec<T> d = span.load(x + r * cols + j + v * lanes<T>) - middle[v];
        sum[v] += d;
        square[v] += d * d;
      }
    for (int v = 0; v < n; ++v) {
      T *s = sums + j + v * lanes<T>, *q = squares + j + v * lanes<T>;
      span.store(s, accumulate ? span.load(s) + sum[v] : sum[v]);
      span.store(q, accumulate ? span.load(q) + square[v] : square[v]);
    }
  });
}

template <class T>
static void norm_grad_sums(const NormSumsArgs<T>& args, Index rows, Index cols, bool accumulate) {
  with_cheap_activation<T>(args.act, [&](auto formula) {
    using Formula = decltype(formula);
    constexpr bool plain = std::is_same_v<Formula, Identity<Math<T>>>;
    const Vec<T> slope = splat(args.slope);
    for_column_blocks<T>(cols, [&](Index j, auto vectors, auto span) __attribute__((always_inline)) {
      constexpr int n = decltype(vectors)::value;
      Vec<T> sum[n] = {}, product[n] = {};
      for (Index r = 0; r < rows; ++r)
        for (int v = 0; v < n; ++v) {
          const Index at = j + v * lanes<T>, i = r * cols + at;
          Vec<T> d = span.load(args.dy + i);
          if constexpr (!plain) d *= Formula::first(span.load(args.saved + i), slope);
          sum[v] += d;
          product[v] += d * (span.load(args.x + i) - span.load(args.mean + at));
        }
      for (int v = 0; v < n; ++v) {
        T *s = args.sums + j + v * lanes<T>, *p = args.products + j + v * lanes<T>;
        span.store(s, accumulate ? span.load(s) + sum[v] : sum[v]);
        span.store(p, accumulate ? span.load(p) + product[v] : product[v]);
      }
    });
  });
}

template <class T>
static void normalize(const NormalizeArgs<T>& args, Index rows, Index cols) {
  with_cheap_activation<T>(args.act, [&](auto formula) {
    using Formula = decltype(formula);
    const Vec<T> slope = splat(args.slope);
    const auto run = [&](auto residual) __attribute__((always_inline)) {
      for (Index r = 0; r < rows; ++r)
        for_each_vector<T>(cols, [&](Index j, auto span) __attribute__((always_inline)) {
          const Index i = r * cols + j;
          Vec<T> z = (span.load(args.x + i) - span.load(args.mean + j)) * span.load(args.scale + j) +
                     span.load(args.shift + j);
          if constexpr (decltype(residual)::value) z += span.load(args.residual + i);
          span.store(args.y + i, Formula::value(z, slope));
        });
    };
    if (args.residual)
      run(std::true_type{});
    else
      run(std::false_type{});
  });
}

template <class T>
static void norm_grad(const NormGradArgs<T>& args, Index rows, Index cols) {
  with_cheap_activation<T>(args.act, [&](auto formula) {
    using Formula = decltype(formula);
    constexpr bool plain = std::is_same_v<Formula, Identity<Math<T>>>;
    const Vec<T> slope = splat(args.slope);
    for (Index r = 0; r < rows; ++r)
      for_each_vector<T>(cols, [&](Index j, auto span) __attribute__((always_inline)) {
        const Index i = r * cols + j;
        Vec<T> d = span.load(args.dy + i);
        if constexpr (!plain) d *= Formula::first(span.load(args.saved + i), slope);
        const Vec<T> x = span.load(args.x + i) - span.load(args.mean + j);
        span.store(args.dx + i, span.load(args.scale + j) * d - span.load(args.offset + j) -
                                    span.load(args.slant + j) * x);
      });
  });
}

template <class T>
constexpr NormKernels<T> norm_kernels() {
  return {square_sums<T>, norm_grad_sums<T>, normalize<T>, norm_grad<T>};
}

}  // namespace gemmule::cpu::GEMMULE_ISA
