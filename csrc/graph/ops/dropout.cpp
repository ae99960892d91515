// y = x mask / (1 - rate). The mask is a function of (key, step, layer, sample, unit), so the adjoint is the
// same op on the gradient and nothing is stored. channel_dropout: a unit is a whole channel, the last axis of
// samples that have more than one.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer_channels(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  const ValueInfo& x = g.info(in[0]);
  require(x.batched && x.dims.rank() >= 2, ErrorKind::shape, "channel_dropout: a sample ", x.dims,
          " has no channels");
  return x;
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  const ValueId x = node.in[0];
  adjoints.add(x, adjoints.graph.apply(node.op, {dy}, node.attrs, adjoints.name(x)));
}

double cost(const Graph& g, const Node& node, Index rows) { return per_element(15, g, node, rows); }

double cost_of_channels(const Graph& g, const Node& node, Index rows) {
  return per_element(1, g, node, rows);
}

}  // namespace

const OpRule dropout{"dropout", same_as_first, adjoint, cost, 0};
const OpRule channel_dropout{"channel_dropout", infer_channels, adjoint, cost_of_channels, 0};

}  // namespace gemmule::ops
