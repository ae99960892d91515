#include <algorithm>

#include "graph/op.h"
#include "graph/passes.h"

namespace gemmule {
namespace {

bool contains(const std::vector<ValueId>& list, ValueId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

// The kernels of normalization take these along for one instruction.
bool is_cheap(Act act) { return act == Act::relu || act == Act::leaky_relu; }

auto position_of(std::vector<Node>& nodes, ValueId made) {
  return std::find_if(nodes.begin(), nodes.end(), [&](const Node& n) { return n.out == made; });
}

}  // namespace

// conv2d, batch_norm with given statistics -> conv2d with scaled filters and another bias, which a node
// before it makes from the parameters.
void fold_norms(Graph& graph, const std::vector<ValueId>& keep) {
  std::vector<Node>& nodes = graph.nodes;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node norm = nodes[i];
    if (norm.op != OpKind::batch_norm || norm.attrs.residual) continue;
    const ValueId z = norm.in[0], stats = norm.in[1];
    const auto conv = position_of(nodes, z);
    const auto statistics = position_of(nodes, stats);
    if (conv == nodes.end() || conv->op != OpKind::conv2d || conv->attrs.act != Act::identity ||
        conv->attrs.scaled || conv->attrs.residual)
      continue;
    if (statistics == nodes.end() || statistics->op != OpKind::running_stats || graph.readers(z) != 1 ||
        contains(keep, z))
      continue;
    std::vector<ValueId> in{stats};
    if (norm.attrs.affine) in.insert(in.end(), {norm.in[2], norm.in[3]});
    if (conv->in.size() > 2) in.push_back(conv->in[2]);
    Attrs attrs;
    attrs.affine = norm.attrs.affine;
    const auto at = conv - nodes.begin();
    const Node statistics_node = *statistics;
    const ValueId folded =
        graph.apply(OpKind::fold_norm, std::move(in), attrs, graph.value(z).name + " folded");
    const Node fold_node = nodes.back();
    nodes.pop_back();
    Node& product = nodes[static_cast<std::size_t>(at)];
    product.in = {product.in[0], product.in[1], folded};
    product.attrs.scaled = true;
    product.out = norm.out;
    nodes.erase(nodes.begin() + static_cast<std::ptrdiff_t>(i));
    if (position_of(nodes, stats) - nodes.begin() > at) {
      nodes.erase(position_of(nodes, stats));
      nodes.insert(nodes.begin() + at, {statistics_node, fold_node});
    } else {
      nodes.insert(nodes.begin() + at, fold_node);
    }
    i = 0;  // positions have moved
  }
}

// batch_norm, add, activation -> one pass over the data; group_norm, activation alike.
bool join_activation(Node& norm, const Attrs& activation) {
  const bool fits = norm.op == OpKind::batch_norm || norm.op == OpKind::group_norm;
  if (!fits || norm.attrs.act != Act::identity || !is_cheap(activation.act)) return false;
  norm.attrs.act = activation.act;
  norm.attrs.slope = activation.slope;
  return true;
}

// The derivative of an activation, where only the adjoints of a normalization read it, into both of them.
void fuse_norm_derivatives(Graph& graph, const std::vector<ValueId>& keep) {
  const auto takes = [](const Node& node) {
    return (node.op == OpKind::batch_norm_sums || node.op == OpKind::batch_norm_grad ||
            node.op == OpKind::group_norm_sums || node.op == OpKind::group_norm_grad) &&
           node.attrs.act == Act::identity;
  };
  std::vector<Node> kept;
  const std::vector<Node> before = graph.nodes;
  for (const Node& node : before) {
    const ValueId dz = node.out;
    const auto reads = [&](const Node& n) { return contains(n.in, dz); };
    const bool folds =
        node.op == OpKind::activation_grad && is_cheap(node.attrs.act) && !contains(keep, dz) &&
        std::any_of(before.begin(), before.end(), reads) &&
        std::all_of(before.begin(), before.end(), [&](const Node& n) { return !reads(n) || takes(n); });
    if (!folds) {
      kept.push_back(node);
      continue;
    }
    for (Node& reader : graph.nodes)
      if (reads(reader)) {
        std::replace(reader.in.begin(), reader.in.end(), dz, node.in[0]);
        reader.in.push_back(node.in[1]);
        reader.attrs.act = node.attrs.act;
        reader.attrs.slope = node.attrs.slope;
      }
  }
  std::vector<Node> result;
  for (const Node& node : kept) result.push_back(*position_of(graph.nodes, node.out));
  graph.nodes = std::move(result);
}

}  // namespace gemmule
