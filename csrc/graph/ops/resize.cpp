// resize: images of another size, by attrs.resize along both axes; see core/resize.h.
//   x (H, W, C) -> y (H', W', C), attrs.dims;  y[p, q] = sum over i, j of down(p, i) across(q, j) x[i, j]
// resize_grad, its adjoint: dx[i, j] = sum over p, q of down(p, i) across(q, j) dy[p, q], attrs.dims.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& x = g.info(in[0]);
  const Shape result(attrs.dims);
  check_resize("resize", attrs.resize, x.dims, result, attrs.scale[0], attrs.scale[1]);
  return {result, x.batched, x.type};
}

ValueInfo infer_grad(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& dy = g.info(in[0]);
  const Shape image(attrs.dims);
  check_resize("resize_grad", attrs.resize, image, dy.dims, attrs.scale[0], attrs.scale[1]);
  return {image, dy.batched, dy.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  const ValueId x = node.in[0];
  Attrs attrs = node.attrs;
  attrs.dims = adjoints.graph.info(x).dims.dims();
  adjoints.add(x, adjoints.graph.apply(OpKind::resize_grad, {dy}, std::move(attrs), adjoints.name(x)));
}

// Two multiply-adds along each axis at the most, or every pixel added once.
double cost(const Graph& g, const Node& node, Index rows) {
  return 4 * static_cast<double>(g.count(node.in[0], rows) + g.count(node.out, rows));
}

}  // namespace

const OpRule resize{"resize", infer, adjoint, cost};
const OpRule resize_grad{"resize_grad", infer_grad, nullptr, cost};

}  // namespace gemmule::ops
