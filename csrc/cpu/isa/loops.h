// Loops over contiguous arrays by vectors. Each body is compiled twice: for all lanes and, at the end, for
// the first few.
#pragma once
#include "cpu/isa/vec.h"

namespace gemmule::cpu::GEMMULE_ISA {

// What a body reads and writes through: every lane ...
template <class T>
struct Whole {
  Vec<T> load(const T* p) const { return GEMMULE_ISA::load(p); }
  void store(T* p, Vec<T> v) const { GEMMULE_ISA::store(p, v); }
  Vec<T> keep(Vec<T> v, Vec<T>) const { return v; }
};

// ... or the first n; keep() puts `other` into the lanes beyond.
template <class T>
struct First {
  Index n;
  Vec<T> load(const T* p) const { return load_first(p, n); }
  void store(T* p, Vec<T> v) const { store_first(p, v, n); }
  Vec<T> keep(Vec<T> v, Vec<T> other) const { return first_lanes<T>(n) ? v : other; }
};

// ... or all but the first n.
template <class T>
struct Rest {
  Index n;
  Vec<T> load(const T* p) const { return load_from(p, n); }
};

// body(i, Whole or First) for every vector of [0, count).
template <class T, class Body>
GM_INLINE void for_each_vector(Index count, Body body) {
  Index i = 0;
  for (; i + lanes<T> <= count; i += lanes<T>) body(i, Whole<T>{});
  if (i < count) body(i, First<T>{count - i});
}

// The same, where `first` elements (less than a vector) come before a line begins: they go apart, so that no
// vector lies in two lines.
template <class T, class Body>
GM_INLINE void for_each_vector_from(Index first, Index count, Body body) {
  if (first >= count) first = 0;
  if (first > 0) body(Index{0}, First<T>{first});
  Index i = first;
  for (; i + lanes<T> <= count; i += lanes<T>) body(i, Whole<T>{});
  if (i < count) body(i, First<T>{count - i});
}

// Elements from p to where the next vector begins that lies in one line.
template <class T>
GM_INLINE Index before_line(const T* p) {
  return Index(-reinterpret_cast<std::uintptr_t>(p) / sizeof(T) % lanes<T>);
}

// NumPy's arrays begin 16 bytes into a line of the cache, and then a load of 64 bytes takes two of its lines
// and twice the time: where operands are read as they lie and loads are much of the work, vectors are taken
// from where lines begin. How many elements of a row come before its first one then does; 0 where the rows
// begin each elsewhere. SSE's vectors lie in one line at any rate.
template <class T>
GM_INLINE Index into_line(const T* rows, Index stride) {
  if (GEMMULE_VECTOR_BYTES == 16 || stride % lanes<T> != 0) return 0;
  return Index(reinterpret_cast<std::uintptr_t>(rows) / sizeof(T) % lanes<T>);
}

// dst[i] = f(src[i]...)
template <class T, class F, class... Source>
GM_INLINE void map(Index count, T* dst, F f, const Source*... src) {
  for_each_vector<T>(count, [&](Index i, auto span) { span.store(dst + i, f(span.load(src + i)...)); });
}

// op over the lanes of v, by halves.
template <int size, class V, class Op>
GM_INLINE auto reduce_lanes(V v, Op op) {
  using T = decltype(v[0] + v[0]);
  if constexpr (size == 1) {
    return T(v[0]);
  } else {
    typedef T Half __attribute__((vector_size(size / 2 * sizeof(T))));
    Half low, high;
    std::memcpy(&low, &v, sizeof(Half));
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof(Half), sizeof(Half));
    return reduce_lanes<size / 2>(op(low, high), op);
  }
}

template <class T>
GM_INLINE T sum_lanes(Vec<T> v) {
  return reduce_lanes<lanes<T>>(v, [](auto a, auto b) { return a + b; });
}
template <class T>
GM_INLINE T max_lane(Vec<T> v) {
  return reduce_lanes<lanes<T>>(v, [](auto a, auto b) { return a > b ? a : b; });
}

// Sum of term(i, span) over the vectors of [0, count). No accumulator takes more than 384 terms.
template <class T, class Term>
GM_INLINE double sum_vectors(Index count, Term term) {
  constexpr Index block = 384 * lanes<T>;
  double total = 0;
  for (Index start = 0; start < count; start += block) {
    Vec<T> sum{};
    for_each_vector<T>(count - start < block ? count - start : block,
                       [&](Index i, auto span) { sum += span.keep(term(start + i, span), Vec<T>{}); });
    total += double(sum_lanes<T>(sum));
  }
  return total;
}

}  // namespace gemmule::cpu::GEMMULE_ISA
