// The loss of each sample, (batch, ...) and its target -> (batch,) in float64: the training loop sums it.
// loss_grad is the derivative of the batch's mean loss: the backend scales it by 1 / rows or, where samples
// have weights, by their shares of the batch's weight, a third input (batch,), which `loss` passes on unread.
#include "core/losses.h"
#include "core/names.h"
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo &pred = g.info(in[0]), &target = g.info(in[1]);
  const bool labels = target.type == DType::i64;
  require(pred.dims.rank() == 1 || !(labels || takes_distributions(attrs.loss)), ErrorKind::shape,
          name_of(attrs.loss), ": output ", pred.dims, " a sample; it takes one axis, the classes");
  if (labels)
    require(takes_labels(attrs.loss), ErrorKind::dtype, name_of(attrs.loss),
            ": takes real targets, not labels");
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
  const OpKind grad = node.op == OpKind::loss ? OpKind::loss_grad : OpKind::python_loss_grad;
  const ValueId pred = node.in[0];
  adjoints.add(pred, adjoints.graph.apply(grad, node.in, node.attrs, adjoints.name(pred)));
}

double cost(const Graph& g, const Node& node, Index rows) {
  return 25.0 * static_cast<double>(g.count(node.in[0], rows));
}

}  // namespace

const OpRule loss{"loss", infer, adjoint, cost};
const OpRule loss_grad{"loss_grad", infer_grad, nullptr, cost};

// The same from the user's own functions, Graph::custom_loss.
const OpRule python_loss{"python_loss", infer, adjoint, cost};
const OpRule python_loss_grad{"python_loss_grad", infer_grad, nullptr, cost};

}  // namespace gemmule::ops
