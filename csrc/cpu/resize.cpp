#include "cpu/resize.h"

#include <algorithm>

#include "core/arena.h"
#include "cpu/dispatch.h"

namespace gemmule::cpu {
namespace {

// What a member looks up: the taps of every result along an axis, and the results that a pixel is in.
struct Axis {
  Taps* taps;
  Span* readers;
};

Index bytes_of(const ResizeAxis& axis) {
  return checked_add(round_up(checked_mul(axis.outputs, sizeof(Taps)), alignment),
                     round_up(checked_mul(axis.size, sizeof(Span)), alignment));
}

Axis tabulate(Resize kind, const ResizeAxis& axis, std::byte* at) {
  const Axis table{
      reinterpret_cast<Taps*>(at),
      reinterpret_cast<Span*>(at + round_up(axis.outputs * static_cast<Index>(sizeof(Taps)), alignment))};
  std::fill_n(table.readers, axis.size, Span{0, 0});
  for (Index o = 0; o < axis.outputs; ++o) {
    const Taps taps = table.taps[o] = taps_of(kind, axis, o);
    for (Index i = taps.begin; i < taps.end; ++i) {
      if (table.readers[i].size() == 0) table.readers[i].begin = o;
      table.readers[i].end = o + 1;
    }
  }
  return table;
}

// A workspace: two tables, then a row.
template <class T>
struct Tables {
  Tables(const Resizing& shape, void* workspace)
      : y(tabulate(shape.kind, shape.y, static_cast<std::byte*>(workspace))),
        x(tabulate(shape.kind, shape.x, static_cast<std::byte*>(workspace) + bytes_of(shape.y))),
        row(reinterpret_cast<T*>(static_cast<std::byte*>(workspace) + bytes_of(shape.y) +
                                 bytes_of(shape.x))) {}
  Axis y, x;
  T* row;
};

// dst = the sum of weight(i) src[i step .. + count), i of the span. One of weight 1 is where it lies: then
// `dst` may be left alone, and what is returned is the sum.
template <class T, class Weight>
const T* combine(Span span, const Weight& weight, Index count, const T* src, Index step, T* dst) {
  if (span.size() == 1 && weight(span.begin) == 1) return src + span.begin * step;
  if (span.size() == 0) std::fill_n(dst, count, T(0));
  for (Index i = span.begin; i < span.end; ++i)
    kernels<T>().element.axpby(count, weight(i), src + i * step, i > span.begin ? 1 : 0, dst);
  return dst;
}

template <class T>
void place(const T* sum, Index count, T* dst) {
  if (sum != dst) std::copy_n(sum, count, dst);
}

// The same for a mean, whose weights are alike: its sum, for a division later.
template <class T>
const T* add_up(Span span, Index count, const T* src, Index step, T* dst) {
  if (span.size() == 1) return src + span.begin * step;
  kernels<T>().element.sum_rows(span.size(), count, src + span.begin * step, step, dst, false);
  return dst;
}

}  // namespace

template <class T>
Index resize_workspace(const Resizing& shape) {
  const Index row = checked_mul(checked_mul(std::max(shape.x.size, shape.x.outputs), shape.channels),
                                static_cast<Index>(sizeof(T)));
  return checked_add(checked_add(bytes_of(shape.y), bytes_of(shape.x)), row);
}

template <class T>
void resize(const Team& team, const Resizing& shape, const T* x, T* y, void* workspace) {
  const Tables<T> tables(shape, workspace);
  const Index channels = shape.channels, row = shape.x.size * channels;
  const Span mine = team.share(shape.images * shape.y.outputs);
  for (Index r = mine.begin; r < mine.end; ++r) {
    const T* const image = x + r / shape.y.outputs * shape.y.size * row;
    const Taps down = tables.y.taps[r % shape.y.outputs];
    const Span rows{down.begin, down.end};
    T* out = y + r * shape.x.outputs * channels;
    if (shape.kind == Resize::mean) {
      const T* const line = add_up(rows, row, image, row, tables.row);
      for (Index q = 0; q < shape.x.outputs; ++q, out += channels) {
        const Span pixels{tables.x.taps[q].begin, tables.x.taps[q].end};
        place(add_up(pixels, channels, line, channels, out), channels, out);
        const Index count = rows.size() * pixels.size();
        if (count > 1) kernels<T>().element.axpby(channels, T(1) / static_cast<T>(count), out, 0, out);
      }
      continue;
    }
    const T* const line =
        combine(rows, [&](Index i) { return static_cast<T>(down.weight(i)); }, row, image, row, tables.row);
    for (Index q = 0; q < shape.x.outputs; ++q, out += channels) {
      const Taps across = tables.x.taps[q];
      const auto weight = [&](Index j) { return static_cast<T>(across.weight(j)); };
      place(combine({across.begin, across.end}, weight, channels, line, channels, out), channels, out);
    }
  }
}

template <class T>
void resize_grad(const Team& team, const Resizing& shape, const T* dy, T* dx, void* workspace) {
  const Tables<T> tables(shape, workspace);
  const Index channels = shape.channels, row = shape.x.outputs * channels;
  const Span mine = team.share(shape.images * shape.y.size);
  for (Index r = mine.begin; r < mine.end; ++r) {
    const Index i = r % shape.y.size;
    const T* const image = dy + r / shape.y.size * shape.y.outputs * row;
    const auto down = [&](Index p) { return static_cast<T>(tables.y.taps[p].weight(i)); };
    const T* const line = combine(tables.y.readers[i], down, row, image, row, tables.row);
    T* out = dx + r * shape.x.size * channels;
    for (Index j = 0; j < shape.x.size; ++j, out += channels) {
      const auto across = [&](Index q) { return static_cast<T>(tables.x.taps[q].weight(j)); };
      place(combine(tables.x.readers[j], across, channels, line, channels, out), channels, out);
    }
  }
}

#define GEMMULE_RESIZE(T)                                                     \
  template Index resize_workspace<T>(const Resizing&);                        \
  template void resize<T>(const Team&, const Resizing&, const T*, T*, void*); \
  template void resize_grad<T>(const Team&, const Resizing&, const T*, T*, void*);
GEMMULE_RESIZE(float)
GEMMULE_RESIZE(double)
#undef GEMMULE_RESIZE

}  // namespace gemmule::cpu
