// y = x mask / (1 - rate). The mask is a function of (key, step, layer, sample, unit), so the adjoint is the
// same op on the gradient and nothing is stored.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  const ValueId x = node.in[0];
  adjoints.add(x, adjoints.graph.apply(OpKind::dropout, {dy}, node.attrs, adjoints.name(x)));
}

double cost(const Graph& g, const Node& node, Index rows) { return per_element(15, g, node, rows); }

}  // namespace

const OpRule dropout{"dropout", same_as_first, adjoint, cost, 0};

}  // namespace gemmule::ops
