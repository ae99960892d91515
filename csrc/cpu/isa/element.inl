// Elementwise kernels over a vector type, and the table of all ElementKernels. An ISA file defines
// GEMMULE_ISA and GEMMULE_VECTOR_BYTES, then includes this.
#pragma once
#include "core/activations.h"
#include "core/philox.h"
#include "cpu/isa/loops.h"
#include "cpu/isa/losses.inl"
#include "cpu/isa/math.h"
#include "cpu/isa/update.inl"
#include "cpu/kernels.h"
#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace gemmule::cpu::GEMMULE_ISA {

template <class T>
static void activation(Act act, T slope, Index count, const T* z, T* h) {
  with_activation<Math<T>>(act, [&](auto formula) {
    map<T>(count, h, [&](Vec<T> v) { return decltype(formula)::value(v, splat(slope)); }, z);
  });
}

template <class T>
static void activation_grad(Act act, T slope, Index count, const T* dh, const T* saved, T* dz) {
  with_activation<Math<T>>(act, [&](auto formula) {
    map<T>(
        count, dz, [&](Vec<T> d, Vec<T> v) { return d * decltype(formula)::first(v, splat(slope)); }, dh,
        saved);
  });
}

template <class T>
static void add(Index count, const T* a, const T* b, T* dst) {
  map<T>(count, dst, [](Vec<T> x, Vec<T> y) { return x + y; }, a, b);
}

template <class T>
static void exp(Index count, const T* x, T* dst) {
  map<T>(count, dst, [](Vec<T> v) { return Math<T>::exp(v); }, x);
}

template <class T>
static void erf(Index count, const T* x, T* dst) {
  map<T>(count, dst, [](Vec<T> v) { return Math<T>::erf(v); }, x);
}

// Philox on 64-bit lanes (core/philox.h). The widening product has no operator.
struct VectorWords {
  using Word = Bits<double>;
  GM_INLINE Word multiply(Word a, std::uint32_t m) {
#if defined(__AVX512F__)
    return Word(_mm512_maskz_mul_epu32(0xFF, __m512i(a), _mm512_set1_epi64(m)));
#elif defined(__AVX2__)
    return Word(_mm256_mul_epu32(__m256i(a), _mm256_set1_epi64x(m)));
#elif defined(__SSE2__)
    return Word(_mm_mul_epu32(__m128i(a), _mm_set1_epi64x(m)));
#elif defined(__ARM_NEON)
    return Word(vmull_u32(vmovn_u64(uint64x2_t(a)), vdup_n_u32(m)));
#else
    return (a & std::uint64_t(0xFFFFFFFF)) * std::uint64_t(m);
#endif
  }
};

// a[0] b[0] a[1] b[1] ...
GM_INLINE void store_interleaved(std::uint32_t* p, Bits<double> a, Bits<double> b) {
#if GEMMULE_VECTOR_BYTES == 64
  const Bits<double> low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
  const Bits<double> high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif GEMMULE_VECTOR_BYTES == 32
  const Bits<double> low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Bits<double> high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
  const Bits<double> low = __builtin_shufflevector(a, b, 0, 2);
  const Bits<double> high = __builtin_shufflevector(a, b, 1, 3);
#endif
  std::memcpy(p, &low, sizeof low);
  std::memcpy(p + 2 * lanes<double>, &high, sizeof high);
}

inline constexpr int draws_at_once = 4 * lanes<double>;

// The draws of units [first, first + draws_at_once), first a multiple of 4.
GM_INLINE void dropout_draws(const DropoutArgs& args, Index sample, Index first, std::uint32_t* draws) {
  Bits<double> lane;
  for (int i = 0; i < lanes<double>; ++i) lane[i] = i;
  const Bits<double> zero{};
  Bits<double> words[4] = {lane + std::uint64_t(first / 4), zero + std::uint64_t(sample),
                           zero + std::uint64_t(args.layer), zero + args.step};
  philox<VectorWords>(words, args.key);
  constexpr std::uint64_t half = 0xFFFFFFFF;
  store_interleaved(draws, (words[0] & half) | words[1] << 32, (words[2] & half) | words[3] << 32);
}

// As many draws as a vector of T has lanes.
template <class T>
GM_INLINE Bits<T> load_draws(const std::uint32_t* p) {
  typedef std::uint32_t Draws __attribute__((vector_size(4 * lanes<T>)));
  Draws draws;
  std::memcpy(&draws, p, sizeof draws);
  return __builtin_convertvector(draws, Bits<T>);
}

template <class T>
static void dropout(const DropoutArgs& args, Index first_row, Index rows, Index cols, const T* x, T* dst) {
  const T scale = args.rate < 1 ? T(1 / (1 - args.rate)) : T(0);
  const double steps = args.rate * 0x1p32;  // a unit is dropped where its draw is below
  const std::uint32_t threshold = steps < 0x1p32 ? std::uint32_t(steps) : 0xFFFFFFFF;
  for (Index r = 0; r < rows; ++r) {
    const T* src = x + r * cols;
    T* out = dst + r * cols;
    for (Index first = 0; first < cols; first += draws_at_once) {
      std::uint32_t draws[draws_at_once];
      dropout_draws(args, first_row + r, first, draws);
      for_each_vector<T>(
          cols - first < draws_at_once ? cols - first : draws_at_once, [&](Index i, auto span) {
            const Vec<T> mask = load_draws<T>(draws + i) >= threshold ? splat(scale) : Vec<T>{};
            span.store(out + first + i, span.load(src + first + i) * mask);
          });
    }
  }
}

// By way of 32-bit integers: the conversion from those is one instruction everywhere.
template <class T>
GM_INLINE Vec<T> widen_bytes(const std::uint8_t* p) {
  typename Narrow<T>::bytes bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, typename Narrow<T>::words), Vec<T>);
}

template <class T>
static void scale_bytes(Index count, const std::uint8_t* src, T scale, T* dst) {
  for_each_vector<T>(count, [&](Index i, auto span) {
    std::uint8_t last[lanes<T>] = {};  // what is read where fewer bytes than lanes are left
    const std::uint8_t* from = src + i;
    if (count - i < lanes<T>) {
      for (Index k = 0; k < count - i; ++k) last[k] = from[k];
      from = last;
    }
    span.store(dst + i, widen_bytes<T>(from) * splat(scale));
  });
}

template <class T>
constexpr ElementKernels<T> element_kernels() {
  return {activation<T>,   activation_grad<T>, add<T>,      exp<T>,        erf<T>,       softmax<T>,
          softmax_grad<T>, dropout<T>,         sum_rows<T>, loss<T>,       loss_grad<T>, update<T>,
          sum_squares<T>,  axpby<T>,           max_abs<T>,  scale_bytes<T>};
}

}  // namespace gemmule::cpu::GEMMULE_ISA
