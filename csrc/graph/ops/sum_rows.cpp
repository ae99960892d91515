// y_j = sum over the batch, and over all axes but the last: (batch, ..., n) -> (n,). The adjoint of a bias.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  const ValueInfo& x = g.info(in[0]);
  return {x.dims.rank() > 1 ? Shape{x.dims.back()} : x.dims, false, x.type};
}

double cost(const Graph& g, const Node& node, Index rows) {
  return static_cast<double>(rows) * static_cast<double>(g.info(node.in[0]).dims.count());
}

}  // namespace

const OpRule sum_rows{"sum_rows", infer, nullptr, cost};

}  // namespace gemmule::ops
