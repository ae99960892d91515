// z = x W^T + b, h = act(z) once `fuse` has joined them.
//   x (batch, n_in), W (n_out, n_in), b (n_out,) -> (batch, n_out)
//   dx = dz W,  dW = dz^T x,  db = sum over the batch of dz
// The operands of the three products are rounded to attrs.precision.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo &x = g.info(in[0]), &w = g.info(in[1]);
  require(attrs.precision == Precision::full || x.type == DType::f32, ErrorKind::dtype,
          "dense: precision 'bf16' is for float32, not ", name_of(x.type));
  require(x.batched && !w.batched && w.dims.rank() == 2, ErrorKind::shape, "dense: weight ", w.dims,
          " is not a matrix (n_out, n_in)");
  require(x.dims.rank() == 1, ErrorKind::shape, "dense: x has ", x.dims.rank(), " dimensions ", x.dims,
          " a sample, weight ", w.dims, " takes one: put Flatten before it");
  require(x.dims[0] == w.dims[1], ErrorKind::shape, "dense: x has ", x.dims[0], " features, weight ", w.dims,
          " takes ", w.dims[1]);
  if (in.size() > 2)
    require(g.info(in[2]).dims == Shape{w.dims[0]}, ErrorKind::shape, "dense: bias ", g.info(in[2]).dims,
            " does not fit weight ", w.dims);
  return {Shape{w.dims[0]}, true, x.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dz) {
  Graph& g = adjoints.graph;
  const ValueId x = node.in[0], w = node.in[1], b = node.in.size() > 2 ? node.in[2] : no_value;
  if (adjoints.wanted(w)) {
    Attrs attrs;
    attrs.precision = node.attrs.precision;
    attrs.trans_a = true;
    adjoints.add(w, g.apply(OpKind::matmul, {dz, x}, attrs, adjoints.name(w)));
  }
  if (adjoints.wanted(b)) adjoints.add(b, g.apply(OpKind::sum_rows, {dz}, {}, adjoints.name(b)));
  if (adjoints.wanted(x)) {
    Attrs attrs;
    attrs.precision = node.attrs.precision;
    adjoints.add(x, g.apply(OpKind::matmul, {dz, w}, attrs, adjoints.name(x)));
  }
}

double cost(const Graph& g, const Node& node, Index rows) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(g.info(node.in[1]).dims.count());
}

}  // namespace

const OpRule dense{"dense", infer, adjoint, cost};

}  // namespace gemmule::ops
