#include "graph/ops/ops.h"

namespace gemmule {

const OpRule& rule(OpKind op) {
  switch (op) {
    case OpKind::dense:
      return ops::dense;
    case OpKind::matmul:
      return ops::matmul;
    case OpKind::conv2d:
      return ops::conv2d;
    case OpKind::conv2d_data:
      return ops::conv2d_data;
    case OpKind::conv2d_weights:
      return ops::conv2d_weights;
    case OpKind::sum_rows:
      return ops::sum_rows;
    case OpKind::activation:
      return ops::activation;
    case OpKind::activation_grad:
      return ops::activation_grad;
    case OpKind::softmax:
      return ops::softmax;
    case OpKind::softmax_grad:
      return ops::softmax_grad;
    case OpKind::dropout:
      return ops::dropout;
    case OpKind::channel_dropout:
      return ops::channel_dropout;
    case OpKind::reshape:
      return ops::reshape;
    case OpKind::add:
      return ops::add;
    case OpKind::max_pool:
      return ops::max_pool;
    case OpKind::max_pool_grad:
      return ops::max_pool_grad;
    case OpKind::avg_pool:
      return ops::avg_pool;
    case OpKind::avg_pool_grad:
      return ops::avg_pool_grad;
    case OpKind::pad:
      return ops::pad;
    case OpKind::crop:
      return ops::crop;
    case OpKind::resize:
      return ops::resize;
    case OpKind::resize_grad:
      return ops::resize_grad;
    case OpKind::concat:
      return ops::concat;
    case OpKind::slice:
      return ops::slice;
    case OpKind::batch_stats:
      return ops::batch_stats;
    case OpKind::running_stats:
      return ops::running_stats;
    case OpKind::track:
      return ops::track;
    case OpKind::batch_norm:
      return ops::batch_norm;
    case OpKind::batch_norm_sums:
      return ops::batch_norm_sums;
    case OpKind::batch_norm_grad:
      return ops::batch_norm_grad;
    case OpKind::fold_norm:
      return ops::fold_norm;
    case OpKind::group_norm:
      return ops::group_norm;
    case OpKind::group_norm_sums:
      return ops::group_norm_sums;
    case OpKind::group_norm_grad:
      return ops::group_norm_grad;
    case OpKind::row:
      return ops::row;
    case OpKind::python:
      return ops::python;
    case OpKind::python_grad:
      return ops::python_grad;
    case OpKind::loss:
      return ops::loss;
    case OpKind::loss_grad:
      return ops::loss_grad;
    case OpKind::python_loss:
      return ops::python_loss;
    case OpKind::python_loss_grad:
      return ops::python_loss_grad;
  }
  fail(ErrorKind::state, "an op without rules");
}

namespace ops {

ValueInfo same_as_first(const Graph& graph, const std::vector<ValueId>& in, const Attrs&) {
  return graph.info(in[0]);
}

double per_element(double flops, const Graph& graph, const Node& node, Index rows) {
  return flops * static_cast<double>(graph.count(node.out, rows));
}

}  // namespace ops
}  // namespace gemmule
