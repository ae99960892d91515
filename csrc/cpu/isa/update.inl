// Optimizer steps over flat buffers, and the largest magnitude. Included by element.inl.
#pragma once
#include "core/updates.h"
#include "cpu/isa/loops.h"
#include "cpu/isa/math.h"
#include "cpu/kernels.h"

namespace gemmule::cpu::GEMMULE_ISA {

// The largest |x| seen, compared as bits: the order of positive numbers, with NaN above infinity.
template <class T>
struct Magnitude {
  Mask<T> largest = {};

  // One instruction where the ISA has it, which compilers find in this loop and not in the vector's ternary.
  void see(Vec<T> x) {
    const auto size = Mask<T>(Math<T>::abs(x));
    for (int i = 0; i < lanes<T>; ++i) largest[i] = size[i] > largest[i] ? size[i] : largest[i];
  }
  double result() const {
    const auto bits = reduce_lanes<lanes<T>>(largest, [](auto a, auto b) { return a > b ? a : b; });
    T size;
    std::memcpy(&size, &bits, sizeof(T));
    return size == size ? double(size) : __builtin_inf();
  }
};

template <class T>
static double max_abs(Index count, const T* x) {
  Magnitude<T> magnitude;
  for_each_vector<T>(count, [&](Index i, auto span) { magnitude.see(span.load(x + i)); });
  return magnitude.result();
}

template <class T, class Formula>
static double update_with(Formula, const UpdateArgs& args, Index count, T* weight, const T* grad, T* s0,
                          T* s1) {
  const UpdateScalars<T> scalars = update_scalars<T>(args);
  Magnitude<T> magnitude;
  for_each_vector<T>(count, [&](Index i, auto span) {
    Vec<T> w = span.load(weight + i), a{}, b{};
    if constexpr (Formula::slots > 0) a = span.load(s0 + i);
    if constexpr (Formula::slots > 1) b = span.load(s1 + i);
    Formula::step(scalars, w, span.load(grad + i), a, b);
    magnitude.see(w);
    span.store(weight + i, w);
    if constexpr (Formula::slots > 0) {
      magnitude.see(a);
      span.store(s0 + i, a);
    }
    if constexpr (Formula::slots > 1) {
      magnitude.see(b);
      span.store(s1 + i, b);
    }
  });
  return magnitude.result();
}

template <class T>
static double update(Rule rule, const UpdateArgs& args, Index count, T* weight, const T* grad, T* s0, T* s1) {
  double largest = 0;
  with_update<Math<T>>(
      rule, args, [&](auto formula) { largest = update_with(formula, args, count, weight, grad, s0, s1); });
  return largest;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
