#include "core/window.h"

namespace gemmule {
namespace {

// Sums and products of sizes below this stay in 64 bits.
constexpr Index most = Index{1} << 31;

void check_axis(const char* op, const char* name, const WindowAxis& axis, Index size) {
  require(axis.kernel >= 1 && axis.kernel < most, ErrorKind::value, op, ": kernel ", name, " is ",
          axis.kernel, ", it is at least 1");
  require(axis.stride >= 1 && axis.stride < most, ErrorKind::value, op, ": stride ", name, " is ",
          axis.stride, ", it is at least 1");
  require(axis.dilation >= 1 && axis.dilation < most, ErrorKind::value, op, ": dilation ", name, " is ",
          axis.dilation, ", it is at least 1");
  for (Index padding : {axis.before, axis.after})
    require(padding >= 0 && padding < most, ErrorKind::value, op, ": padding ", name, " is ", padding,
            ", it is at least 0 and below 2^31");
  require(size >= 1 && size < most, ErrorKind::shape, op, ": the image's ", name, " is ", size);
  const Index padded = size + axis.before + axis.after, extent = axis.extent();
  require(extent <= padded, ErrorKind::value, op, ": kernel ", name, " covers ", extent,
          " pixels, the padded image has ", padded);
}

void check_pool_axis(const char* op, const char* name, const WindowAxis& axis) {
  require(axis.dilation == 1, ErrorKind::value, op, ": dilation ", name, " is ", axis.dilation,
          ", pooling windows have none");
  for (Index padding : {axis.before, axis.after})
    require(padding < axis.kernel, ErrorKind::value, op, ": padding ", name, " is ", padding,
            ", it is less than the kernel's ", axis.kernel);
}

}  // namespace

void check_window(const char* op, const Window& window, const Shape& image) {
  require(image.rank() == 3, ErrorKind::shape, op, ": a sample has shape ", image, ", not (H, W, C)");
  check_axis(op, "height", window.y, image[0]);
  check_axis(op, "width", window.x, image[1]);
}

void check_filters(const char* op, Index channels, const Shape& weight, Index groups) {
  require(weight.rank() == 4, ErrorKind::shape, op, ": weight ", weight, " is not (K, kh, kw, C / groups)");
  require(groups >= 1 && channels % groups == 0 && weight[0] % groups == 0, ErrorKind::value, op,
          ": groups is ", groups, ", which does not divide ", channels, " channels and ", weight[0],
          " filters");
  require(weight[3] == channels / groups, ErrorKind::shape, op, ": x has ", channels, " channels, weight ",
          weight, " with ", groups, groups == 1 ? " group" : " groups", " takes ", weight[3] * groups);
}

void check_pool(const char* op, const Window& window, const Shape& image) {
  check_window(op, window, image);
  check_pool_axis(op, "height", window.y);
  check_pool_axis(op, "width", window.x);
}

void check_max_pool(const char* op, const Window& window, const Shape& image) {
  check_pool(op, window, image);
  require(window.taps() <= 255, ErrorKind::value, op, ": kernel (", window.y.kernel, ", ", window.x.kernel,
          ") has ", window.taps(), " taps, it has at most 255");
}

Shape slide(const Window& window, const Shape& image, Index channels) {
  return {window.y.outputs(image[0]), window.x.outputs(image[1]), channels};
}

}  // namespace gemmule
