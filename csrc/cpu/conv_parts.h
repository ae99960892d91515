// What the drivers of convolutions share: bands of an image with their padding, and filters in panels.
#pragma once
#include <algorithm>

#include "cpu/conv.h"
#include "cpu/gemm_parts.h"

namespace gemmule::cpu {

// out[n, i, j, :] = sum over the window's elements at (i, j) times filters in panels. An image's gradient is
// made of these too, then with flipped filters and outputs that lie some pixels apart.
template <class T>
struct Sliding {
  const T* x;
  Index images, height, width, channels, groups;
  bool depthwise;  // then the panels are of (taps, channels)
  Window window;   // `before` may be negative: `after` is not read
  const T* panels;
  Index filters;  // of all groups
  T* out;
  Index out_height, out_width;
  Index image_step, row_step, pixel_step;  // of out
  const T* bias;
  Act act;
  T slope;
  const T* saved;     // where out lies in it, act' is taken
  const T* residual;  // like out, added to it
};

// Those that cost an instruction, where nothing comes between.
template <class T>
bool acts_in_registers(const Sliding<T>& call) {
  return !call.saved && !call.residual && (call.act == Act::relu || call.act == Act::leaky_relu);
}

// The part of an image that the windows of some outputs cover.
template <class T>
struct Band {
  const T* data;  // the first window's first element
  Index pitch;    // elements between its rows
};

// Along one axis: pixels that the windows of so many outputs cover, and whether they lie inside the image.
// `before` may be negative: the first window then begins inside it.
inline Index covered(const WindowAxis& axis, Index outputs) {
  return (outputs - 1) * axis.stride + axis.extent();
}
inline bool within(const WindowAxis& axis, Span outputs, Index size) {
  const Index first = outputs.begin * axis.stride - axis.before;
  return first >= 0 && first + covered(axis, outputs.size()) <= size;
}

// Taps of the window over output o that lie inside the image.
inline Span taps_inside(const WindowAxis& axis, Index o, Index size) {
  const Index first = o * axis.stride - axis.before;  // the pixel of tap 0
  const Index begin = first >= 0 ? 0 : std::min(pieces(-first, axis.dilation), axis.kernel);
  const Index end = first >= size ? 0 : std::min(pieces(size - first, axis.dilation), axis.kernel);
  return {begin, std::max(begin, end)};
}
// Outputs with all of them: a stretch, perhaps empty.
inline Span whole_windows(const WindowAxis& axis, Index outputs, Index size) {
  const auto whole = [&](Index o) { return taps_inside(axis, o, size).size() == axis.kernel; };
  Span found{0, 0};
  while (found.begin < outputs && !whole(found.begin)) ++found.begin;
  found.end = found.begin;
  while (found.end < outputs && whole(found.end)) ++found.end;
  return found;
}

// Outputs over which a tap lies inside the image.
inline Span outputs_inside(const WindowAxis& axis, Index tap, Index outputs, Index size) {
  const Index begins = axis.before - tap * axis.dilation;  // the image's first pixel, from output 0's
  const auto first_from = [&](Index pixel) { return pixel > 0 ? pieces(pixel, axis.stride) : 0; };
  const Index end = std::min(outputs, first_from(begins + size));
  return {std::min(first_from(begins), end), end};
}

inline Span common(Span a, Span b) {
  const Index begin = std::max(a.begin, b.begin);
  return {begin, std::max(begin, std::min(a.end, b.end))};
}

// In place where all windows lie inside the image, else a copy in `buffer` with zeros around it.
template <class T>
Band<T> band_of(const T* image, Index height, Index width, Index channels, const Window& window, Span rows,
                Span cols, T* buffer) {
  const Index top = rows.begin * window.y.stride - window.y.before;
  const Index left = cols.begin * window.x.stride - window.x.before;
  if (within(window.y, rows, height) && within(window.x, cols, width))
    return {image + (top * width + left) * channels, width * channels};
  const Index high = covered(window.y, rows.size()), wide = covered(window.x, cols.size());
  const Index first = std::clamp<Index>(-left, 0, wide);            // columns of zeros before the image
  const Index last = std::clamp<Index>(width - left, first, wide);  // where those after it begin
  for (Index i = 0; i < high; ++i) {
    T* to = buffer + i * wide * channels;
    const Index y = top + i;
    if (y < 0 || y >= height) {
      std::fill_n(to, wide * channels, T(0));
      continue;
    }
    std::fill_n(to, first * channels, T(0));
    std::copy_n(image + (y * width + left + first) * channels, (last - first) * channels,
                to + first * channels);
    std::fill_n(to + last * channels, (wide - last) * channels, T(0));
  }
  return {buffer, wide * channels};
}

// Stretches of a window's elements that lie in runs of equal length, equally far apart, in the order of the
// filters' own: the whole window where a row of it is one run, else each row of taps, in runs of a group's
// channels.
struct Strand {
  Index offset;      // of its first element in the band, from the window's first
  Index run, apart;  // elements of a run; from a run's end to the next
  Index begin, end;  // in the depth of a filter
};

struct Strands {
  Strands(const Window& window, Index channels, Index group_channels, Index pitch)
      : one_run_(channels == group_channels && window.x.dilation == 1),

        row_(window.x.kernel * group_channels),
        count_(one_run_ ? 1 : window.y.kernel),
        taps_y_(window.y.kernel),
        step_y_(window.y.dilation * pitch),
        run_(one_run_ ? row_ : group_channels),
        apart_(one_run_ ? step_y_ - row_ : window.x.dilation * channels - group_channels) {}

  Index count() const { return count_; }
  Strand operator[](Index i) const {
    if (one_run_) return {0, run_, apart_, 0, taps_y_ * row_};
    return {i * step_y_, run_, apart_, i * row_, (i + 1) * row_};
  }

 private:
  bool one_run_;
  Index row_, count_, taps_y_, step_y_, run_, apart_;
};

// Where element p of a strand lies in the band, from the window's first.
inline Index place_in(const Strand& s, Index p) {
  return s.offset + p / s.run * (s.run + s.apart) + p % s.run;
}

}  // namespace gemmule::cpu
