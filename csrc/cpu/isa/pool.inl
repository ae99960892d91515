// Pooling kernels: vectors lie along the channels, which are adjacent; a window's taps are the outer loop.
#pragma once
#include "cpu/isa/loops.h"
#include "cpu/kernels.h"

namespace gemmule::cpu::GEMMULE_ISA {

template <int n>
struct Vectors {
  static constexpr int count = n;
};

// body(c, Vectors, Whole or First) for all channels, by several vectors at once where there are enough: a
// tap's loop then costs little, and as many chains are under way.
template <class T, class Body>
GM_INLINE void for_channels(Index channels, Body body) {
  Index c = 0;
  for (; c + 4 * lanes<T> <= channels; c += 4 * lanes<T>) body(c, Vectors<4>{}, Whole<T>{});
  for (; c + lanes<T> <= channels; c += lanes<T>) body(c, Vectors<1>{}, Whole<T>{});
  if (c < channels) body(c, Vectors<1>{}, First<T>{channels - c});
}

struct Range {
  Index begin, end;
  Index size() const { return end - begin; }
};

// The taps of window o that lie inside the image.
GM_INLINE Range taps_inside(const PoolAxis& axis, Index o) {
  const Index start = o * axis.stride - axis.before;
  return {start < 0 ? -start : 0, axis.size - start < axis.kernel ? axis.size - start : axis.kernel};
}

// The image's place under tap t of window o.
GM_INLINE Index place_of(const PoolAxis& axis, Index o, Index t) { return o * axis.stride - axis.before + t; }

// The windows that hold `place`, from those that hold the one before it, or none.
GM_INLINE Range windows_next(const PoolAxis& axis, Index place, Range o) {
  while (o.end < axis.outputs && o.end * axis.stride - axis.before <= place) ++o.end;
  while (o.begin < o.end && o.begin * axis.stride - axis.before + axis.kernel <= place) ++o.begin;
  return o;
}

// The windows that hold `place`.
GM_INLINE Range windows_over(const PoolAxis& axis, Index place) {
  const Index before =
      place + axis.before - axis.kernel;  // where the last window that ends too early may begin
  const Index begin = before < 0 ? 0 : before / axis.stride + 1,
              end = (place + axis.before) / axis.stride + 1;
  return {begin, end < axis.outputs ? end : axis.outputs};
}

template <class T>
GM_INLINE Mask<T> places_at(Index tap) {
  return Mask<T>{} + int(tap);
}

template <class T>
GM_INLINE Mask<T> load_places(Whole<T>, const std::uint8_t* p) {
  return load_bytes<T>(p);
}
template <class T>
GM_INLINE Mask<T> load_places(First<T> span, const std::uint8_t* p) {
  std::uint8_t bytes[lanes<T>] = {};
  for (int i = 0; i + 1 < lanes<T>; ++i)
    if (i < span.n) bytes[i] = p[i];
  return load_bytes<T>(bytes);
}
template <class T>
GM_INLINE void store_places(Whole<T>, std::uint8_t* p, Mask<T> places) {
  store_bytes<T>(p, places);
}
template <class T>
GM_INLINE void store_places(First<T> span, std::uint8_t* p, Mask<T> places) {
  std::uint8_t bytes[lanes<T>];
  store_bytes<T>(bytes, places);
  for (int i = 0; i + 1 < lanes<T>; ++i)
    if (i < span.n) p[i] = bytes[i];
}

template <bool keeps_places, class T>
GM_INLINE void max_windows(const PoolShape& shape, Index row, const T* image, T* y, std::uint8_t* places) {
  const Index channels = shape.channels, line = shape.x.size * channels;
  const Range rows = taps_inside(shape.y, row);
  for (Index o = 0; o < shape.x.outputs; ++o, y += channels, places += keeps_places ? channels : 0) {
    const Range cols = taps_inside(shape.x, o);
    const T* corner =
        image + place_of(shape.y, row, rows.begin) * line + place_of(shape.x, o, cols.begin) * channels;
    const Index corner_tap = rows.begin * shape.x.kernel + cols.begin;
    for_channels<T>(channels, [&](Index c, auto vectors, auto span) __attribute__((always_inline)) {
      constexpr int n = decltype(vectors)::count;
      Vec<T> top[n];
      Mask<T> place[n];
      for (int v = 0; v < n; ++v) top[v] = span.load(corner + c + v * lanes<T>);
      for (int v = 0; v < n; ++v) place[v] = places_at<T>(corner_tap);
      Index s = 1;  // the first tap is there already
      for (Index r = 0; r < rows.size(); ++r, s = 0)
        for (; s < cols.size(); ++s) {
          const T* from = corner + r * line + s * channels + c;
          const Mask<T> tap = places_at<T>(corner_tap + r * shape.x.kernel + s);
          for (int v = 0; v < n; ++v) {
            const Vec<T> x = span.load(from + v * lanes<T>);
            const Mask<T> wins = (x > top[v]) | (x != x);
            top[v] = select(wins, x, top[v]);
            if (keeps_places) place[v] = select(wins, tap, place[v]);
          }
        }
      for (int v = 0; v < n; ++v) span.store(y + c + v * lanes<T>, top[v]);
      if (keeps_places)
        for (int v = 0; v < n; ++v) store_places(span, places + c + v * lanes<T>, place[v]);
    });
  }
}

template <class T>
static void max_pool(const PoolShape& shape, Index row, const T* image, T* y, std::uint8_t* places) {
  if (places)
    max_windows<true>(shape, row, image, y, places);
  else
    max_windows<false>(shape, row, image, y, places);
}

template <class T>
static void max_pool_grad(const PoolShape& shape, Index row, const T* dy, const std::uint8_t* places, T* dx) {
  const Index channels = shape.channels;
  const Range rows = windows_over(shape.y, row);
  Range cols{0, 0};
  for (Index i = 0; i < shape.x.size; ++i, dx += channels) {
    cols = windows_next(shape.x, i, cols);
    for_channels<T>(channels, [&](Index c, auto vectors, auto span) __attribute__((always_inline)) {
      constexpr int n = decltype(vectors)::count;
      Vec<T> sum[n] = {};
      for (Index oy = rows.begin; oy < rows.end; ++oy)
        for (Index ox = cols.begin; ox < cols.end; ++ox) {
          const Index at = (oy * shape.x.outputs + ox) * channels + c;
          const Mask<T> tap =
              places_at<T>((row - place_of(shape.y, oy, 0)) * shape.x.kernel + i - place_of(shape.x, ox, 0));
          for (int v = 0; v < n; ++v) {
            const Mask<T> here = load_places(span, places + at + v * lanes<T>) == tap;
            sum[v] += select(here, span.load(dy + at + v * lanes<T>), Vec<T>{});
          }
        }
      for (int v = 0; v < n; ++v) span.store(dx + c + v * lanes<T>, sum[v]);
    });
  }
}

// total += the terms of [begin, end), at most 384 of them in one accumulator.
template <int n, class T, class Term>
GM_INLINE void add_run(Vec<T> (&total)[n], Index begin, Index end, Term term) {
  while (begin < end) {
    const Index stop = end - begin < 384 ? end : begin + 384;
    Vec<T> sum[n] = {};
    for (; begin < stop; ++begin) term(begin, sum);
    for (int v = 0; v < n; ++v) total[v] += sum[v];
  }
}

template <class T>
static void avg_pool(const PoolShape& shape, Index row, const T* image, T* y) {
  const Index channels = shape.channels, line = shape.x.size * channels;
  const Range rows = taps_inside(shape.y, row);
  for (Index o = 0; o < shape.x.outputs; ++o, y += channels) {
    const Range cols = taps_inside(shape.x, o);
    const T* corner =
        image + place_of(shape.y, row, rows.begin) * line + place_of(shape.x, o, cols.begin) * channels;
    const T count = T(shape.count_padding ? shape.y.kernel * shape.x.kernel : rows.size() * cols.size());
    for_channels<T>(channels, [&](Index c, auto vectors, auto span) __attribute__((always_inline)) {
      constexpr int n = decltype(vectors)::count;
      Vec<T> total[n] = {};
      for (Index r = 0; r < rows.size(); ++r)
        add_run<n, T>(total, 0, cols.size(), [&](Index s, Vec<T>(&sum)[n]) __attribute__((always_inline)) {
          const T* from = corner + r * line + s * channels + c;
          for (int v = 0; v < n; ++v) sum[v] += span.load(from + v * lanes<T>);
        });
      for (int v = 0; v < n; ++v) span.store(y + c + v * lanes<T>, total[v] / count);
    });
  }
}

template <class T>
static void avg_pool_grad(const PoolShape& shape, Index row, const T* dy, T* dx) {
  const Index channels = shape.channels;
  const Range rows = windows_over(shape.y, row);
  const T of_all = T(1) / T(shape.y.kernel * shape.x.kernel);
  Range cols{0, 0};
  for (Index i = 0; i < shape.x.size; ++i, dx += channels) {
    cols = windows_next(shape.x, i, cols);
    for_channels<T>(channels, [&](Index c, auto vectors, auto span) __attribute__((always_inline)) {
      constexpr int n = decltype(vectors)::count;
      Vec<T> total[n] = {};
      for (Index oy = rows.begin; oy < rows.end; ++oy) {
        const Range inside = taps_inside(shape.y, oy);
        add_run<n, T>(
            total, cols.begin, cols.end, [&](Index ox, Vec<T>(&sum)[n]) __attribute__((always_inline)) {
              const T* from = dy + (oy * shape.x.outputs + ox) * channels + c;
              const T share =
                  shape.count_padding ? of_all : T(1) / T(inside.size() * taps_inside(shape.x, ox).size());
              for (int v = 0; v < n; ++v) sum[v] += span.load(from + v * lanes<T>) * share;
            });
      }
      for (int v = 0; v < n; ++v) span.store(dx + c + v * lanes<T>, total[v]);
    });
  }
}

template <class T>
constexpr PoolKernels<T> pool_kernels() {
  return {max_pool<T>, max_pool_grad<T>, avg_pool<T>, avg_pool_grad<T>};
}

}  // namespace gemmule::cpu::GEMMULE_ISA
