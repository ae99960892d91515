// Windows as Python gives them.
#pragma once
#include <array>

#include "core/window.h"

namespace gemmule::bindings {

using Pair = std::array<Index, 2>;     // down, across
using Padding = std::array<Index, 4>;  // top, bottom, left, right

inline Window window_of(const Pair& kernel, const Pair& stride, const Padding& padding,
                        const Pair& dilation = {1, 1}) {
  return {{kernel[0], stride[0], padding[0], padding[1], dilation[0]},
          {kernel[1], stride[1], padding[2], padding[3], dilation[1]}};
}

// That of filters (K, kh, kw, C / groups); of other shapes, which their op refuses, 1 x 1.
inline Pair kernel_of(const Shape& weight) {
  return weight.rank() == 4 ? Pair{weight[1], weight[2]} : Pair{1, 1};
}

}  // namespace gemmule::bindings
