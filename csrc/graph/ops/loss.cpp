// The loss of each sample, (batch, ...) and its target -> (batch,) in float64: the training loop sums it.
// loss_grad is the derivative of the batch's mean loss: the backend scales it by 1 / rows or, where samples
// have weights, by their shares of the batch's weight, a third input (batch,), which `loss` passes on unread.
#include "core/names.h"
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo &pred = g.info(in[0]), &target = g.info(in[1]);
  const bool classes = attrs.loss == Loss::cross_entropy || attrs.loss == Loss::cross_entropy_probabilities;
  require(!classes || pred.dims.rank() == 1, ErrorKind::shape, "cross_entropy: output ", pred.dims,
          " a sample; it takes one axis, the classes");
  if (target.type == DType::i64)
    require(classes, ErrorKind::dtype, name_of(attrs.loss), ": takes real targets, not labels");
  else
    require(pred.dims == target.dims, ErrorKind::shape, "loss: output ", pred.dims, " and target ",
            target.dims, " a sample differ");
  if (in.size() > 2)
    require(g.info(in[2]).dims.rank() == 0 && g.info(in[2]).type == g.type, ErrorKind::shape,
            "loss: the shares are one ", name_of(g.type), " a sample");
  return {Shape{}, true, DType::f64};
}

ValueInfo infer_grad(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  infer(g, in, attrs);
  return g.info(in[0]);
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId) {
  const ValueId pred = node.in[0];
  adjoints.add(pred, adjoints.graph.apply(OpKind::loss_grad, node.in, node.attrs, adjoints.name(pred)));
}

double cost(const Graph& g, const Node& node, Index rows) {
  return 25.0 * static_cast<double>(g.count(node.in[0], rows));
}

}  // namespace

const OpRule loss{"loss", infer, adjoint, cost};
const OpRule loss_grad{"loss_grad", infer_grad, nullptr, cost};

}  // namespace gemmule::ops
