// y = forward(x), dx = backward(dy, x, y): the two are Python functions on whole batches.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& x = g.info(in[0]);
  return {g.callbacks[static_cast<std::size_t>(attrs.callback)].dims, true, x.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  const ValueId x = node.in[0];
  adjoints.add(x, adjoints.graph.apply(OpKind::python_grad, {dy, x, node.out}, node.attrs, adjoints.name(x)));
}

ValueInfo infer_grad(const Graph& g, const std::vector<ValueId>& in, const Attrs&) { return g.info(in[1]); }

double cost(const Graph&, const Node&, Index) { return 0; }

}  // namespace

const OpRule python{"python", infer, adjoint, cost};
const OpRule python_grad{"python_grad", infer_grad, nullptr, cost};

}  // namespace gemmule::ops
