// h_j = exp(z_j) / sum_k exp(z_k) over the last axis;  dz = h (dh - sum_k dh_k h_k).
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  const ValueInfo& z = g.info(in[0]);
  require(z.dims.rank() >= 1, ErrorKind::shape, "softmax: a sample of shape ", z.dims,
          " has no axis to sum over");
  return z;
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dh) {
  const ValueId z = node.in[0];
  adjoints.add(z, adjoints.graph.apply(OpKind::softmax_grad, {dh, node.out}, {}, adjoints.name(z)));
}

double cost(const Graph& g, const Node& node, Index rows) { return per_element(25, g, node, rows); }

}  // namespace

const OpRule softmax{"softmax", infer, adjoint, cost, 0};
const OpRule softmax_grad{"softmax_grad", same_as_first, nullptr, cost, 0};

}  // namespace gemmule::ops
