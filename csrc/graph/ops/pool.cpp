// Pooling: a window (attrs.window) slides over each channel of an image.
//   x (H, W, C) -> y (H', W', C)
//   max_pool: y = the largest element of the window; also its place t = r kernel_w + s there, the first of
//             equals, in a byte. Padding is never the largest. NaN is, and of several the last is kept.
//   avg_pool: y = the sum of the window's elements / kernel_h kernel_w, or / the number of those inside the
//             image unless attrs.count_padding
//   max_pool_grad: dx = the sum of dy over the windows whose largest element x is;  reads dy and the places
//   avg_pool_grad: dx = the sum of dy / (what the window's sum was divided by) over the windows that hold x
// attrs.dims is the image of the adjoints.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const char* op, const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs,
                void (*check)(const char*, const Window&, const Shape&)) {
  const ValueInfo& x = g.info(in[0]);
  require(x.batched && x.type == g.type, ErrorKind::shape, op, ": x ", x.dims, " is no batch of images");
  check(op, attrs.window, x.dims);
  return {slide(attrs.window, x.dims, x.dims[2]), true, x.type};
}

ValueInfo infer_max(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  return infer("max_pool", g, in, attrs, check_max_pool);
}

ValueInfo infer_places(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  return {infer_max(g, in, attrs).dims, true, DType::u8};
}

ValueInfo infer_avg(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  return infer("avg_pool", g, in, attrs, check_pool);
}

// Of either adjoint; a max_pool's reads the places, which are like dy.
ValueInfo infer_grad(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const Shape image(attrs.dims), windows = slide(attrs.window, image, image[2]);
  for (ValueId id : in)
    require(g.info(id).dims == windows, ErrorKind::shape, "pool: gradient ", g.info(id).dims,
            " does not fit image ", image, ", whose windows are ", windows);
  return {image, true, g.info(in[0]).type};
}

void emit(Adjoints& adjoints, const Node& node, OpKind op, std::vector<ValueId> in) {
  Graph& g = adjoints.graph;
  const ValueId x = node.in[0];
  Attrs attrs = node.attrs;
  attrs.dims = g.info(x).dims.dims();
  adjoints.add(x, g.apply(op, std::move(in), std::move(attrs), adjoints.name(x)));
}

void adjoint_max(Adjoints& adjoints, const Node& node, ValueId dy) {
  emit(adjoints, node, OpKind::max_pool_grad, {dy, node.also});
}

void adjoint_avg(Adjoints& adjoints, const Node& node, ValueId dy) {
  emit(adjoints, node, OpKind::avg_pool_grad, {dy});
}

double cost(const Graph& g, const Node& node, Index rows) {
  return per_element(static_cast<double>(node.attrs.window.taps()), g, node, rows);
}

// Every element of dx is written, and every tap of every window added to one.
double cost_grad(const Graph& g, const Node& node, Index rows) {
  return per_element(1, g, node, rows) +
         static_cast<double>(node.attrs.window.taps()) * static_cast<double>(g.count(node.in[0], rows));
}

}  // namespace

const OpRule max_pool{"max_pool", infer_max, adjoint_max, cost, -1, infer_places, "places"};
const OpRule max_pool_grad{"max_pool_grad", infer_grad, nullptr, cost_grad};
const OpRule avg_pool{"avg_pool", infer_avg, adjoint_avg, cost};
const OpRule avg_pool_grad{"avg_pool_grad", infer_grad, nullptr, cost_grad};

}  // namespace gemmule::ops
