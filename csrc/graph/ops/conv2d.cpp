// z = x * W + b, the window of attrs sliding over images; h = act(z) once `fuse` has joined them.
//   x (batch, H, W, C), weight (K, kh, kw, C / groups), b (K,) -> (batch, H', W', K)
//   z[n, i, j, k] = sum over r, s, c of x[n, i sy - py + r dy, j sx - px + s dx, c] weight[k, r, s, c] + b[k]
// x is zero outside the image; filter k sees the channels of its group. conv2d_data carries dz to dx,
// conv2d_weights makes dW, and db sums dz over the batch and all pixels.
//
// conv2d_data is a layer's op too, the transposed convolution (attrs.transposed): of values (batch, H', W',
// K) it makes images (batch, H, W, C), attrs.dims, and may add a bias (C,). It is linear in both inputs, so
// its own adjoints are the other two ops.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo &x = g.info(in[0]), &w = g.info(in[1]);
  check_window("conv2d", attrs.window, x.dims);
  check_filters("conv2d", x.dims.back(), w.dims, attrs.groups);
  if (in.size() > 2)
    require(g.info(in[2]).dims == Shape{w.dims[0]}, ErrorKind::shape, "conv2d: bias ", g.info(in[2]).dims,
            " does not fit weight ", w.dims);
  return {slide(attrs.window, x.dims, w.dims[0]), true, x.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dz) {
  Graph& g = adjoints.graph;
  const ValueId x = node.in[0], w = node.in[1], b = node.in.size() > 2 ? node.in[2] : no_value;
  Attrs attrs;
  attrs.window = node.attrs.window;
  attrs.groups = node.attrs.groups;
  attrs.strict = node.attrs.strict;
  if (adjoints.wanted(w)) {
    attrs.dims = g.info(w).dims.dims();
    adjoints.add(w, g.apply(OpKind::conv2d_weights, {dz, x}, attrs, adjoints.name(w)));
  }
  if (adjoints.wanted(b)) adjoints.add(b, g.apply(OpKind::sum_rows, {dz}, {}, adjoints.name(b)));
  if (adjoints.wanted(x)) {
    attrs.dims = g.info(x).dims.dims();
    adjoints.add(x, g.apply(OpKind::conv2d_data, {dz, w}, attrs, adjoints.name(x)));
  }
}

ValueInfo infer_data(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo &dz = g.info(in[0]), &w = g.info(in[1]);
  const Shape image(attrs.dims);
  check_window("conv2d_data", attrs.window, image);
  check_filters("conv2d_data", image.back(), w.dims, attrs.groups);
  const Shape windows = slide(attrs.window, image, w.dims[0]);
  require(dz.dims == windows, ErrorKind::shape, "conv2d_data: ", dz.dims, " does not fit image ", image,
          ", whose windows are ", windows);
  if (in.size() > 2)
    require(g.info(in[2]).dims == Shape{image.back()}, ErrorKind::shape, "conv2d_data: bias ",
            g.info(in[2]).dims, " does not fit image ", image);
  return {image, true, dz.type};
}

// Of the transposed convolution; dy is like the image.
void adjoint_of_data(Adjoints& adjoints, const Node& node, ValueId dy) {
  Graph& g = adjoints.graph;
  const ValueId x = node.in[0], w = node.in[1], b = node.in.size() > 2 ? node.in[2] : no_value;
  Attrs attrs;
  attrs.window = node.attrs.window;
  attrs.groups = node.attrs.groups;
  attrs.strict = node.attrs.strict;
  if (adjoints.wanted(x)) adjoints.add(x, g.apply(OpKind::conv2d, {dy, w}, attrs, adjoints.name(x)));
  if (adjoints.wanted(b)) adjoints.add(b, g.apply(OpKind::sum_rows, {dy}, {}, adjoints.name(b)));
  if (adjoints.wanted(w)) {
    attrs.dims = g.info(w).dims.dims();
    adjoints.add(w, g.apply(OpKind::conv2d_weights, {x, dy}, attrs, adjoints.name(w)));
  }
}

ValueInfo weights_like(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  return {Shape(attrs.dims), false, g.info(in[0]).type};
}

// The pixels of z, each with all weights: the padding counts, as it does for everybody.
double products(const Shape& z, const Shape& weight, Index rows) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(z[0] * z[1]) *
         static_cast<double>(weight.count());
}
double cost(const Graph& g, const Node& node, Index rows) {
  return products(g.info(node.out).dims, g.info(node.in[1]).dims, rows);
}
double cost_of_data(const Graph& g, const Node& node, Index rows) {
  return products(g.info(node.in[0]).dims, g.info(node.in[1]).dims, rows);
}
double cost_of_weights(const Graph& g, const Node& node, Index rows) {
  return products(g.info(node.in[0]).dims, g.info(node.out).dims, rows);
}

}  // namespace

const OpRule conv2d{"conv2d", infer, adjoint, cost};
const OpRule conv2d_data{"conv2d_data", infer_data, adjoint_of_data, cost_of_data};
const OpRule conv2d_weights{"conv2d_weights", weights_like, nullptr, cost_of_weights};

}  // namespace gemmule::ops
