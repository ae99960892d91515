#include "core/resize.h"

#include <algorithm>
#include <cmath>

namespace gemmule {
namespace {

// Twice the product of two sizes below this stays in 64 bits.
constexpr Index most = Index{1} << 30;

constexpr const char* names[] = {"nearest", "linear", "corners", "mean"};

// Where result o lies among the pixels, 0 being the centre of the first: at pixel + beyond / whole. Of sizes
// that takes whole numbers alone, so that no digit of `beyond` is lost to `pixel`.
struct Place {
  Index pixel;
  double beyond, whole;
};

Place fraction(Index above, Index below) {
  const Index positive = std::max<Index>(above, 0);
  return {positive / below, static_cast<double>(positive % below), static_cast<double>(below)};
}

Place place_of(Resize kind, const ResizeAxis& axis, Index o) {
  if (kind == Resize::corners) return fraction(o * (axis.size - 1), std::max<Index>(axis.outputs - 1, 1));
  if (axis.scale == 0) return fraction((2 * o + 1) * axis.size - axis.outputs, 2 * axis.outputs);
  const double place =
      std::clamp((static_cast<double>(o) + 0.5) / axis.scale - 0.5, 0.0, static_cast<double>(axis.size - 1));
  return {static_cast<Index>(place), place - std::floor(place), 1};
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
    const Index begin =
        axis.scale > 0
            ? static_cast<Index>(std::min(static_cast<double>(o) / axis.scale, static_cast<double>(last)))
            : o * axis.size / axis.outputs;
    return {begin, begin + 1, 1, 0};
  }
  const Place place = place_of(kind, axis, o);
  if (place.pixel >= last) return {last, last + 1, 1, 0};
  if (place.beyond == 0) return {place.pixel, place.pixel + 1, 1, 0};
  return {place.pixel, place.pixel + 2, (place.whole - place.beyond) / place.whole,
          place.beyond / place.whole};
}

void check_resize(const char* op, Resize kind, const Shape& image, const Shape& result, double scale_y,
                  double scale_x) {
  for (const Shape* shape : {&image, &result}) {
    require(shape->rank() == 3, ErrorKind::shape, op, ": a sample has shape ", *shape, ", not (H, W, C)");
    for (std::size_t axis : {0U, 1U})
      require((*shape)[axis] >= 1 && (*shape)[axis] < most, ErrorKind::shape, op, ": an image ", *shape,
              " has no pixels, or 2^30 along an axis");
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
