// pad: images with zeros around them, as many rows and columns as attrs.window has before and after, whose
// kernel is one pixel.  crop, its adjoint: what lies within, an image attrs.dims.
//   x (H, W, C) -> y (top + H + bottom, left + W + right, C);  y[top + i, left + j] = x[i, j]
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

void check_frame(const Window& window, const Shape& image) {
  check_window("pad", window, image);
  require(window.taps() == 1 && window.y.stride == 1 && window.x.stride == 1, ErrorKind::value,
          "pad: its window is one pixel");
}

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& x = g.info(in[0]);
  check_frame(attrs.window, x.dims);
  return {slide(attrs.window, x.dims, x.dims[2]), x.batched, x.type};
}

ValueInfo infer_crop(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& y = g.info(in[0]);
  const Shape image(attrs.dims);
  check_frame(attrs.window, image);
  require(y.dims == slide(attrs.window, image, image[2]), ErrorKind::shape, "crop: ", y.dims,
          " does not hold ", image, " and its frame");
  return {image, y.batched, y.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  const ValueId x = node.in[0];
  Attrs attrs = node.attrs;
  attrs.dims = adjoints.graph.info(x).dims.dims();
  adjoints.add(x, adjoints.graph.apply(OpKind::crop, {dy}, std::move(attrs), adjoints.name(x)));
}

double cost(const Graph& g, const Node& node, Index rows) { return per_element(1, g, node, rows); }

}  // namespace

const OpRule pad{"pad", infer, adjoint, cost};
const OpRule crop{"crop", infer_crop, nullptr, cost};

}  // namespace gemmule::ops
