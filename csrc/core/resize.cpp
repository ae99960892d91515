#include "core/resize.h"

#include <algorithm>
#include <cmath>

namespace gemmule {
namespace {

// Products of two sizes below this stay in 64 bits.
constexpr Index most = Index{1} << 31;

constexpr const char* names[] = {"nearest", "linear", "corners", "mean"};

// Where result o lies among the pixels, 0 being the centre of the first.
double place_of(Resize kind, const ResizeAxis& axis, Index o) {
  const auto size = static_cast<double>(axis.size), outputs = static_cast<double>(axis.outputs);
  const auto at = static_cast<double>(o);
  if (kind == Resize::corners) return axis.outputs > 1 ? at * (size - 1) / (outputs - 1) : 0;
  const double place = axis.scale > 0 ? (at + 0.5) / axis.scale : (at + 0.5) * size / outputs;
  return std::max(place - 0.5, 0.0);
}

}  // namespace

Taps taps_of(Resize kind, const ResizeAxis& axis, Index o) {
  if (kind == Resize::mean) {
    const Index begin = o * axis.size / axis.outputs;
    const Index end = ((o + 1) * axis.size - 1) / axis.outputs + 1;
    const double share = 1 / static_cast<double>(end - begin);
    return {begin, end, share, share};
  }
  const Index last = axis.size - 1;
  if (kind == Resize::nearest) {
    const Index pixel = axis.scale > 0 ? static_cast<Index>(static_cast<double>(o) / axis.scale)
                                       : o * axis.size / axis.outputs;
    const Index begin = std::min(pixel, last);
    return {begin, begin + 1, 1, 0};
  }
  const double place = place_of(kind, axis, o);
  const Index begin = std::min(static_cast<Index>(place), last);
  const double beyond = place - static_cast<double>(begin);
  if (begin == last || beyond <= 0) return {begin, begin + 1, 1, 0};
  return {begin, begin + 2, 1 - beyond, beyond};
}

void check_resize(const char* op, Resize kind, const Shape& image, const Shape& result, double scale_y,
                  double scale_x) {
  for (const Shape* shape : {&image, &result}) {
    require(shape->rank() == 3, ErrorKind::shape, op, ": a sample has shape ", *shape, ", not (H, W, C)");
    for (std::size_t axis : {0U, 1U})
      require((*shape)[axis] >= 1 && (*shape)[axis] < most, ErrorKind::shape, op, ": an image ", *shape,
              " has no pixels, or 2^31 along an axis");
  }
  require(image[2] == result[2], ErrorKind::shape, op, ": an image ", image, " does not become ", result);
  const bool scaled = kind == Resize::nearest || kind == Resize::linear;
  for (double scale : {scale_y, scale_x})
    require(scale == 0 || (scaled && std::isfinite(scale) && scale > 0), ErrorKind::value, op, ": scale is ",
            scale);
}

Resize resize_of(const std::string& name) {
  for (std::size_t i = 0; i < std::size(names); ++i)
    if (name == names[i]) return static_cast<Resize>(i);
  fail(ErrorKind::value, "unknown resizing '", name, "'");
}

const char* name_of(Resize kind) { return names[static_cast<std::size_t>(kind)]; }

}  // namespace gemmule
