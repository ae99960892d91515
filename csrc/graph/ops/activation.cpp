// h = f(z), elementwise;  dz = dh f'(z), with f' computed from z or from h as the activation says.
#include "core/activations.h"
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

void adjoint(Adjoints& adjoints, const Node& node, ValueId dh) {
  const ValueId z = node.in[0];
  const ValueId saved = saves_input(node.attrs.act) ? z : node.out;
  adjoints.add(z, adjoints.graph.apply(OpKind::activation_grad, {dh, saved}, node.attrs, adjoints.name(z)));
}

// An exponential is about ten multiply-adds.
double cost(const Graph& g, const Node& node, Index rows) {
  const Act act = node.attrs.act;
  const bool cheap = act == Act::identity || act == Act::relu || act == Act::leaky_relu;
  return per_element(cheap ? 1 : 20, g, node, rows);
}

}  // namespace

const OpRule activation{"activation", same_as_first, adjoint, cost, 0};
const OpRule activation_grad{"activation_grad", same_as_first, nullptr, cost, 0};

}  // namespace gemmule::ops
