// The same elements of each sample under another shape (attrs.dims); no memory moves.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& x = g.info(in[0]);
  const Shape dims(attrs.dims);
  require(dims.count() == x.dims.count(), ErrorKind::shape, "reshape: a sample ", x.dims, " does not fill ",
          dims);
  return {dims, x.batched, x.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  const ValueId x = node.in[0];
  Attrs attrs;
  attrs.dims = adjoints.graph.info(x).dims.dims();
  adjoints.add(x, adjoints.graph.apply(OpKind::reshape, {dy}, attrs, adjoints.name(x)));
}

double cost(const Graph&, const Node&, Index) { return 0; }

}  // namespace

const OpRule reshape{"reshape", infer, adjoint, cost};

}  // namespace gemmule::ops
