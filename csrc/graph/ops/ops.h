// The list of ops: every file in this folder defines one or a forward and backward pair.
#pragma once
#include "graph/op.h"

namespace gemmule::ops {

extern const OpRule dense, matmul, sum_rows;
extern const OpRule conv2d, conv2d_data, conv2d_weights;
extern const OpRule activation, activation_grad;
extern const OpRule softmax, softmax_grad;
extern const OpRule dropout, channel_dropout, reshape, add;
extern const OpRule pad, crop, resize, resize_grad, concat, slice;
extern const OpRule max_pool, max_pool_grad, avg_pool, avg_pool_grad;
extern const OpRule batch_stats, running_stats, track, fold_norm, row;
extern const OpRule batch_norm, batch_norm_sums, batch_norm_grad;
extern const OpRule group_norm, group_norm_sums, group_norm_grad;
extern const OpRule python, python_grad;
extern const OpRule loss, loss_grad;
extern const OpRule python_loss, python_loss_grad;

// Shape rules that several ops share.
ValueInfo same_as_first(const Graph& graph, const std::vector<ValueId>& in, const Attrs& attrs);
double per_element(double flops, const Graph& graph, const Node& node, Index rows);

}  // namespace gemmule::ops
