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

template <bool wears, class T, class Formula>
static double update_with(Formula, const UpdateArgs& args, Index count, T* weight, const T* grad,
                          T* const* slots) {
  const UpdateScalars<T> scalars = update_scalars<T>(args);
  [[maybe_unused]] const DressScalars<T> dress = dress_scalars<T>(args);
  [[maybe_unused]] T* const average = wears && args.ema != 0 ? slots[Formula::slots] : nullptr;
  [[maybe_unused]] const T old = T(args.ema), fresh = T(1 - args.ema);
  T* slot[rule_slots] = {};
  for (int k = 0; k < Formula::slots; ++k) slot[k] = slots[k];
  Magnitude<T> magnitude;
  for_each_vector<T>(count, [&](Index i, auto span) {
    Vec<T> w = span.load(weight + i), g = span.load(grad + i), s[rule_slots] = {};
    for (int k = 0; k < Formula::slots; ++k) s[k] = span.load(slot[k] + i);
    if constexpr (wears) g = dressed_gradient<Math<T>>(dress, w, g);
    Formula::step(scalars, w, g, s);
    // Lanes beyond the end are 0 / 0 where eps is 0.
    magnitude.see(span.keep(w, Vec<T>{}));
    span.store(weight + i, w);
    for (int k = 0; k < Formula::slots; ++k) {
      magnitude.see(span.keep(s[k], Vec<T>{}));
      span.store(slot[k] + i, s[k]);
    }
    if constexpr (wears)
      if (average) {
        const Vec<T> mean = old * span.load(average + i) + fresh * w;
        magnitude.see(span.keep(mean, Vec<T>{}));
        span.store(average + i, mean);
      }
  });
  return magnitude.result();
}

template <class T>
static double update(Rule rule, const UpdateArgs& args, Index count, T* weight, const T* grad,
                     T* const* slots) {
  double largest = 0;
  with_update<Math<T>>(rule, args, [&](auto formula) {
    largest = dressed(args) ? update_with<true>(formula, args, count, weight, grad, slots)
                            : update_with<false>(formula, args, count, weight, grad, slots);
  });
  return largest;
}

// The lanes of v in double, in two halves.
struct Widened {
  Vec<double> low, high;
};
GM_INLINE Widened widened(Vec<float> v) {
#if GEMMULE_VECTOR_BYTES == 64
  const auto low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
  const auto high = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif GEMMULE_VECTOR_BYTES == 32
  const auto low = __builtin_shufflevector(v, v, 0, 1, 2, 3);
  const auto high = __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
  const auto low = __builtin_shufflevector(v, v, 0, 1);
  const auto high = __builtin_shufflevector(v, v, 2, 3);
#endif
  return {__builtin_convertvector(low, Vec<double>), __builtin_convertvector(high, Vec<double>)};
}

template <class T>
static double sum_squares(Index count, T limit, const T* x) {
  Vec<double> sum{}, other{};
  for_each_vector<T>(count, [&](Index i, auto span) {
    const Vec<T> most = splat(limit);
    Vec<T> v = span.load(x + i);
    v = v > most ? most : v < -most ? -most : v;
    if constexpr (sizeof(T) == 8) {
      sum += v * v;
    } else {
      const Widened w = widened(v);
      sum += w.low * w.low;
      other += w.high * w.high;
    }
  });
  return sum_lanes<double>(in_register(sum) + in_register(other));
}

template <class T>
static void axpby(Index count, T a, const T* x, T b, T* y) {
  if (b == T(0)) return map<T>(count, y, [=](Vec<T> v) { return a * v; }, x);
  map<T>(count, y, [=](Vec<T> v, Vec<T> old) { return a * v + b * old; }, x, y);
}

}  // namespace gemmule::cpu::GEMMULE_ISA
