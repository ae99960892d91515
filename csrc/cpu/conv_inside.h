// Which outputs of a convolution meet which taps inside the image, and where they lie.
#pragma once
#include <array>

#include "cpu/conv_parts.h"

namespace gemmule::cpu {

// Outputs side by side in every row whose windows have the same taps inside the image, in its width.
struct Stretch {
  Span outputs, taps;
};

// A row of outputs as stretches: two at most before the whole windows of 3 taps, and two behind.
class Stretches {
 public:
  Stretches(const WindowAxis& axis, Index outputs, Index size) {
    for (Index o = 0; o < outputs;) {
      if (count_ == most) {
        complete_ = false;
        return;
      }
      Stretch& s = at_[static_cast<std::size_t>(count_++)];
      s = {{o, o + 1}, taps_inside(axis, o, size)};
      const auto same = [&](Span taps) { return taps.begin == s.taps.begin && taps.end == s.taps.end; };
      while (s.outputs.end < outputs && same(taps_inside(axis, s.outputs.end, size))) ++s.outputs.end;
      o = s.outputs.end;
    }
  }
  bool complete() const { return complete_; }  // else the row has more than are kept
  const Stretch* begin() const { return at_.data(); }
  const Stretch* end() const { return at_.data() + count_; }

 private:
  static constexpr Index most = 16;
  std::array<Stretch, most> at_{};
  Index count_ = 0;
  bool complete_ = true;
};

// A row of the window that lies inside the image for every output, or -1.
inline Index inner_tap(const WindowAxis& axis, Index outputs, Index size) {
  for (Index r = 0; r < axis.kernel; ++r)
    if (outputs_inside(axis, r, outputs, size).size() == outputs) return r;
  return -1;
}

// What tiles of so many outputs take for a panel, in rows times steps: each as much as a row more, and its
// beginning and end as much as 16 steps (100 to 200 cycles).
template <class T>
Index work_of_tiles(const GemmKernels<T>& k, Index outputs, Index depth) {
  const Index tiles = pieces(outputs, k.rows), blocks = pieces(depth, k.depth_block);
  return (outputs + tiles) * depth + tiles * k.rows * blocks * 16;
}

}  // namespace gemmule::cpu
