// Normalization of rows, each by statistics of its own.
#pragma once
#include <type_traits>

#include "cpu/isa/norm.inl"

namespace gemmule::cpu::GEMMULE_ISA {

template <class T, int n>
struct Terms {
  Vec<T> of[n];
};

// totals[k] = sum of term(i, span).of[k] over the vectors of [0, count), in `chains` chains each, so that
// they need not wait for one another. No accumulator takes more than 384 terms.
template <int chains, class T, int n, class Term>
GM_INLINE void chained_sums(Index count, double (&totals)[n], const Term& term) {
  constexpr Index wide = chains * lanes<T>, block = (384 - chains) * wide;
  for (int k = 0; k < n; ++k) totals[k] = 0;
  for (Index start = 0; start < count; start += block) {
    const Index end = count - start < block ? count : start + block;
    Vec<T> sum[chains][n] = {};
    const auto add = [&](int chain, Index i, auto span) __attribute__((always_inline)) {
      const Terms<T, n> terms = term(i, span);
      for (int k = 0; k < n; ++k) sum[chain][k] += span.keep(terms.of[k], Vec<T>{});
    };
    Index i = start;
    for (; i + wide <= end; i += wide)
      for (int chain = 0; chain < chains; ++chain) add(chain, i + chain * lanes<T>, Whole<T>{});
    for (; i + lanes<T> <= end; i += lanes<T>) add(0, i, Whole<T>{});
    if (i < end) add(0, i, First<T>{end - i});
    for (int k = 0; k < n; ++k) {
      for (int chain = 1; chain < chains; ++chain) sum[0][k] += sum[chain][k];
      totals[k] += double(sum_lanes<T>(sum[0][k]));
    }
  }
}

// body(formula, whether there are factors)
template <class T, class Body>
GM_INLINE void with_row_formula(Act act, bool affine, const Body& body) {
  with_cheap_activation<T>(act, [&](auto formula) {
    if (affine)
      body(formula, std::true_type{});
    else
      body(formula, std::false_type{});
  });
}

// The squares are taken about the mean, in a row that is in cache by then, and the mean corrected by that of
// the deviations: no mean, however large, cancels the variance.
template <class T>
static void normalize_rows(const RowNormArgs<T>& args, Index rows, Index cols) {
  with_row_formula<T>(args.act, args.gamma, [&](auto formula, auto affine) {
    using Formula = decltype(formula);
    const Vec<T> slope = splat(args.slope);
    const auto n = double(cols);
    for (Index r = 0; r < rows; ++r) {
      const T* const x = args.x + r * cols;
      double sum[1], sums[2];
      chained_sums<4, T>(cols, sum, [&](Index i, auto span) __attribute__((always_inline)) {
        return Terms<T, 1>{{span.load(x + i)}};
      });
      const T about = T(sum[0] / n);
      chained_sums<2, T>(cols, sums, [&](Index i, auto span) __attribute__((always_inline)) {
        const Vec<T> d = span.load(x + i) - about;
        return Terms<T, 2>{{d, d * d}};
      });
      const double apart = sums[0] / n, variance = sums[1] / n - apart * apart;
      const T mean = T(double(about) + apart);
      const T inverse = T(1 / __builtin_sqrt((variance < 0 ? 0 : variance) + args.eps));
      if (args.stats) {
        args.stats[2 * r] = mean;
        args.stats[2 * r + 1] = inverse;
      }
      T* const y = args.y + r * cols;
      const Index at = r % args.groups * cols;
      for_each_vector<T>(cols, [&](Index i, auto span) __attribute__((always_inline)) {
        Vec<T> z = (span.load(x + i) - mean) * inverse;
        if constexpr (decltype(affine)::value)
          z = z * span.load(args.gamma + at + i) + span.load(args.beta + at + i);
        span.store(y + i, Formula::value(z, slope));
      });
    }
  });
}

template <class T>
static void normalize_rows_grad(const RowNormGradArgs<T>& args, Index rows, Index cols) {
  with_row_formula<T>(args.act, args.gamma, [&](auto formula, auto affine) {
    using Formula = decltype(formula);
    constexpr bool plain = std::is_same_v<Formula, Identity<Math<T>>>;
    const Vec<T> slope = splat(args.slope);
    const auto n = double(cols);
    for (Index r = 0; r < rows; ++r) {
      const Index start = r * cols, at = r % args.groups * cols;
      const T mean = args.stats[2 * r], inverse = args.stats[2 * r + 1];
      const auto weighted = [&](Index i, auto span) __attribute__((always_inline)) {
        Vec<T> d = span.load(args.dy + start + i);
        if constexpr (!plain) d *= Formula::first(span.load(args.saved + start + i), slope);
        if constexpr (decltype(affine)::value) d *= span.load(args.gamma + at + i);
        return d;
      };
      double sums[2];  // of d, of d (x - mean)
      chained_sums<2, T>(cols, sums, [&](Index i, auto span) __attribute__((always_inline)) {
        const Vec<T> d = weighted(i, span);
        return Terms<T, 2>{{d, d * (span.load(args.x + start + i) - mean)}};
      });
      const double scale = double(inverse);
      const T offset = T(scale * sums[0] / n), slant = T(scale * scale * scale * sums[1] / n);
      for_each_vector<T>(cols, [&](Index i, auto span) __attribute__((always_inline)) {
        const Vec<T> d = weighted(i, span), x = span.load(args.x + start + i) - mean;
        span.store(args.dx + start + i, d * inverse - offset - x * slant);
      });
    }
  });
}

template <class T>
static void row_norm_sums(const RowNormSumsArgs<T>& args, Index rows, Index cols) {
  const Index width = args.groups * cols;
  with_cheap_activation<T>(args.act, [&](auto formula) {
    using Formula = decltype(formula);
    constexpr bool plain = std::is_same_v<Formula, Identity<Math<T>>>;
    const Vec<T> slope = splat(args.slope);
    for (Index group = 0; group < args.groups; ++group)
      for_column_blocks<T>(cols, [&](Index j, auto vectors, auto span) __attribute__((always_inline)) {
        constexpr int n = decltype(vectors)::value;
        const Index at = group * cols + j;
        Vec<T> sum[n] = {}, product[n] = {};
        for (Index r = 0; r < rows; ++r) {
          const T* const stats = args.stats + 2 * (r * args.groups + group);
          const T mean = stats[0], inverse = stats[1];
          for (int v = 0; v < n; ++v) {
            const Index i = r * width + at + v * lanes<T>;
            Vec<T> d = span.load(args.dy + i);
            if constexpr (!plain) d *= Formula::first(span.load(args.saved + i), slope);
            sum[v] += d;
            product[v] += d * ((span.load(args.x + i) - mean) * inverse);
          }
        }
        for (int v = 0; v < n; ++v) {
          span.store(args.sums + at + v * lanes<T>, sum[v]);
          span.store(args.products + at + v * lanes<T>, product[v]);
        }
      });
  });
}

template <class T>
constexpr RowNormKernels<T> row_norm_kernels() {
  return {normalize_rows<T>, normalize_rows_grad<T>, row_norm_sums<T>};
}

}  // namespace gemmule::cpu::GEMMULE_ISA
