// y_j = sum over the batch of x_ij: (batch, n) -> (n,). The adjoint of a bias.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  const ValueInfo& x = g.info(in[0]);
  return {x.dims, false, x.type};
}

double cost(const Graph& g, const Node& node, Index rows) {
  return static_cast<double>(rows) * static_cast<double>(g.info(node.out).dims.count());
}

}  // namespace

const OpRule sum_rows{"sum_rows", infer, nullptr, cost};

}  // namespace gemmule::ops
