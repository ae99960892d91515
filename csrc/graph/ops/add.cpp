// y = a + b, same shapes. Each input receives the adjoint as it is.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  const ValueInfo &a = g.info(in[0]), &b = g.info(in[1]);
  require(a.dims == b.dims && a.batched == b.batched, ErrorKind::shape, "add: shapes ", a.dims, " and ",
          b.dims, " differ");
  return a;
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  for (ValueId x : node.in)
    if (adjoints.wanted(x)) adjoints.add(x, dy);
}

double cost(const Graph& g, const Node& node, Index rows) { return per_element(1, g, node, rows); }

}  // namespace

const OpRule add{"add", infer, adjoint, cost, 0};

}  // namespace gemmule::ops
