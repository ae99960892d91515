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

// The rows of a window in an order in which the outputs that have one of them inside the image are one
// stretch that grows at its ends: first the row that most have, then those before it, then those behind.
class TapRows {
 public:
  TapRows(const WindowAxis& axis, Index outputs, Index size) : axis_(axis), outputs_(outputs), size_(size) {
    for (Index r = 1; r < axis.kernel; ++r)
      if (inside(r).size() > inside(first_).size()) first_ = r;
  }
  Index first() const { return first_; }
  Span inside(Index r) const { return outputs_inside(axis_, r, outputs_, size_); }

  // body(r, inside(r), outputs before it): false where these are no stretch.
  template <class Body>
  bool for_each(const Body& body) const {
    Span made = inside(first_);
    body(first_, made, Span{made.begin, made.begin});
    for (Index i = 1; i < axis_.kernel; ++i) {
      const Index r = i <= first_ ? first_ - i : i;
      const Span now = inside(r);
      if (now.size() == 0) continue;
      if (now.begin > made.end || now.end < made.begin) return false;
      body(r, now, made);
      made = {std::min(made.begin, now.begin), std::max(made.end, now.end)};
    }
    return true;
  }

 private:
  const WindowAxis& axis_;
  Index outputs_, size_, first_ = 0;
};

// What tiles of so many outputs take for a panel, in rows times steps: each as much as a row more, and its
// beginning and end as much as 16 steps (100 to 200 cycles).
template <class T>
Index work_of_tiles(const GemmKernels<T>& k, Index outputs, Index depth) {
  const Index tiles = pieces(outputs, k.rows), blocks = pieces(depth, k.depth_block);
  return (outputs + tiles) * depth + tiles * k.rows * blocks * 16;
}

}  // namespace gemmule::cpu
