#include <algorithm>

#include "core/activations.h"
#include "graph/passes.h"

namespace gemmule {
namespace {

bool contains(const std::vector<ValueId>& list, ValueId id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

void remove_dead(Graph& graph, const std::vector<ValueId>& keep) {
  std::vector<bool> needed(graph.values.size(), false);
  for (ValueId id : keep) needed[static_cast<std::size_t>(id)] = true;
  std::vector<Node> alive;
  for (auto node = graph.nodes.rbegin(); node != graph.nodes.rend(); ++node) {
    const bool writes_gradient =
        graph.value(node->out).home == Home::gradient || node->op == OpKind::python_grad;
    if (!needed[static_cast<std::size_t>(node->out)] && !writes_gradient) continue;
    for (ValueId id : node->in) needed[static_cast<std::size_t>(id)] = true;
    alive.push_back(*node);
  }
  std::reverse(alive.begin(), alive.end());
  graph.nodes = std::move(alive);
}

// dense, activation -> dense with an activation. The pre-activation must have no other reader: a derivative
// computed from z keeps the two apart, one computed from h does not.
void fuse_activations(Graph& graph, const std::vector<ValueId>& keep) {
  std::vector<Node> fused;
  for (const Node& node : graph.nodes) {
    Node* dense = nullptr;
    if (node.op == OpKind::activation)
      for (Node& earlier : fused)
        if (earlier.op == OpKind::dense && earlier.out == node.in[0] && earlier.attrs.act == Act::identity)
          dense = &earlier;
    if (dense && graph.readers(dense->out) == 1 && !contains(keep, dense->out)) {
      dense->out = node.out;
      dense->attrs.act = node.attrs.act;
      dense->attrs.slope = node.attrs.slope;
    } else {
      fused.push_back(node);
    }
  }
  graph.nodes = std::move(fused);
}

// dh = dz W, dz' = dh f'(saved) -> one product that ends with the derivative, saved as its third input.
void fuse_derivatives(Graph& graph, const std::vector<ValueId>& keep) {
  std::vector<Node> fused;
  for (const Node& node : graph.nodes) {
    Node* product = nullptr;
    if (node.op == OpKind::activation_grad)
      for (Node& earlier : fused)
        if (earlier.op == OpKind::matmul && earlier.out == node.in[0] && earlier.in.size() == 2)
          product = &earlier;
    if (product && graph.readers(product->out) == 1 && !contains(keep, product->out)) {
      product->in.push_back(node.in[1]);
      product->out = node.out;
      product->attrs.act = node.attrs.act;
      product->attrs.slope = node.attrs.slope;
    } else {
      fused.push_back(node);
    }
  }
  graph.nodes = std::move(fused);
}

// grad += dW: where the op that makes dW can add to what its result holds, the separate addition goes.
void fuse_accumulation(Graph& graph) {
  std::vector<Node> fused;
  for (const Node& node : graph.nodes) {
    const bool into_gradient = node.op == OpKind::add && graph.value(node.out).home == Home::gradient &&
                               graph.value(node.in[0]).home == Home::gradient;
    Node* source = nullptr;
    if (into_gradient)
      for (Node& earlier : fused)
        if (earlier.out == node.in[1] && (earlier.op == OpKind::matmul || earlier.op == OpKind::sum_rows))
          source = &earlier;
    if (source && graph.readers(source->out) == 1) {
      source->out = node.out;
      source->attrs.accumulate = true;
    } else {
      fused.push_back(node);
    }
  }
  graph.nodes = std::move(fused);
}

}  // namespace

void fuse_loss(Graph& graph, ValueId loss) {
  Node& node = graph.nodes[static_cast<std::size_t>(graph.producer(loss))];
  const int before = graph.producer(node.in[0]);
  if (before < 0) return;
  const Node& link = graph.nodes[static_cast<std::size_t>(before)];
  const bool softmax = link.op == OpKind::softmax && node.attrs.loss == Loss::cross_entropy_probabilities;
  const bool sigmoid = link.op == OpKind::activation && link.attrs.act == Act::sigmoid &&
                       link.attrs.slope == 1 && node.attrs.loss == Loss::bce;
  if (!softmax && !sigmoid) return;
  node.attrs.loss = softmax ? Loss::cross_entropy : Loss::bce_with_logits;
  node.in[0] = link.in[0];
}

void fuse(Graph& graph, const std::vector<ValueId>& keep) {
  remove_dead(graph, keep);
  fuse_activations(graph, keep);
  fuse_derivatives(graph, keep);
  fuse_accumulation(graph);
}

}  // namespace gemmule
