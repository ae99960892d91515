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
    const bool writes = graph.value(node->out).home == Home::gradient ||
                        graph.value(node->out).home == Home::next_state || node->op == OpKind::python_grad;
    const bool also = node->also != no_value && needed[static_cast<std::size_t>(node->also)];
    if (!needed[static_cast<std::size_t>(node->out)] && !also && !writes) continue;
    for (ValueId id : node->in) needed[static_cast<std::size_t>(id)] = true;
    alive.push_back(*node);
    if (!also) alive.back().also = no_value;
  }
  std::reverse(alive.begin(), alive.end());
  graph.nodes = std::move(alive);
}

// Folds nodes into the ones before them. `between(node)` names the value that would go, or no_value; where
// nothing else needs it, `merge(producer, node)` may take the node's work over into its producer, which then
// makes the node's result.
template <class Between, class Merge>
void fold(Graph& graph, const std::vector<ValueId>& keep, const Between& between, const Merge& merge) {
  std::vector<Node> folded;
  for (const Node& node : graph.nodes) {
    const ValueId value = between(node);
    const auto producer =
        std::find_if(folded.begin(), folded.end(), [&](const Node& n) { return n.out == value; });
    const bool free = value != no_value && graph.readers(value) == 1 && !contains(keep, value);
    if (free && producer != folded.end() && merge(*producer, node))
      producer->out = node.out;
    else
      folded.push_back(node);
  }
  graph.nodes = std::move(folded);
}

// x + r, where x is made by a batch_norm or a convolution, once r is there -> that op adds r.
void fuse_residuals(Graph& graph, const std::vector<ValueId>& keep) {
  const auto later = [&](const Node& add) {
    return graph.producer(add.in[0]) > graph.producer(add.in[1]) ? 0U : 1U;
  };
  fold(
      graph, keep,
      [&](const Node& node) {
        const bool plain = node.op == OpKind::add && !node.attrs.accumulate && node.in[0] != node.in[1];
        return plain ? node.in[later(node)] : no_value;
      },
      [&](Node& source, const Node& node) {
        const bool fits = source.op == OpKind::batch_norm || source.op == OpKind::conv2d ||
                          source.op == OpKind::conv2d_data;
        if (!fits || source.attrs.act != Act::identity || source.attrs.residual) return false;
        source.in.push_back(node.in[1 - later(node)]);
        source.attrs.residual = true;
        return true;
      });
}

// dense, conv2d or its transpose, activation -> the same with an activation. A derivative computed from z
// reads it too and keeps the two apart, one computed from h does not.
void fuse_activations(Graph& graph, const std::vector<ValueId>& keep) {
  fold(
      graph, keep, [](const Node& node) { return node.op == OpKind::activation ? node.in[0] : no_value; },
      [](Node& product, const Node& node) {
        if (join_activation(product, node.attrs)) return true;
        const bool fits =
            product.op == OpKind::dense || product.op == OpKind::conv2d || product.op == OpKind::conv2d_data;
        if (!fits || product.attrs.act != Act::identity) return false;
        product.attrs.act = node.attrs.act;
        product.attrs.slope = node.attrs.slope;
        return true;
      });
}

// dh = dz W, dz' = dh f'(saved) -> one product that ends with the derivative, saved as its last input.
void fuse_derivatives(Graph& graph, const std::vector<ValueId>& keep) {
  fold(
      graph, keep,
      [](const Node& node) { return node.op == OpKind::activation_grad ? node.in[0] : no_value; },
      [](Node& product, const Node& node) {
        const bool fits = product.op == OpKind::matmul || product.op == OpKind::conv2d_data;
        if (!fits || product.attrs.act != Act::identity) return false;
        product.in.push_back(node.in[1]);
        product.attrs.act = node.attrs.act;
        product.attrs.slope = node.attrs.slope;
        return true;
      });
}

// max_pool_grad puts every element of dy in one place among zeros: sums over all places, a bias's gradient,
// are those of dy.
void sum_before_spreading(Graph& graph) {
  for (Node& node : graph.nodes) {
    if (node.op != OpKind::sum_rows) continue;
    const int source = graph.producer(node.in[0]);
    if (source < 0) continue;
    const Node& spread = graph.nodes[static_cast<std::size_t>(source)];
    if (spread.op == OpKind::max_pool_grad) node.in[0] = spread.in[0];
  }
}

// grad += dW: where the op that makes dW can add to what its result holds, the separate addition goes.
void fuse_accumulation(Graph& graph, const std::vector<ValueId>& keep) {
  fold(
      graph, keep,
      [&](const Node& node) {
        const bool into_gradient = node.op == OpKind::add && graph.value(node.out).home == Home::gradient &&
                                   graph.value(node.in[0]).home == Home::gradient;
        return into_gradient ? node.in[1] : no_value;
      },
      [](Node& source, const Node&) {
        if (source.op != OpKind::matmul && source.op != OpKind::sum_rows &&
            source.op != OpKind::conv2d_weights && source.op != OpKind::row)
          return false;
        source.attrs.accumulate = true;
        return true;
      });
}

}  // namespace

void fuse_loss(Graph& graph, ValueId loss) {
  Node& node = graph.nodes[static_cast<std::size_t>(graph.producer(loss))];
  const int before = graph.producer(node.in[0]);
  if (before < 0) return;
  const Node& link = graph.nodes[static_cast<std::size_t>(before)];
  Loss& kind = node.attrs.loss;
  const bool softmax = link.op == OpKind::softmax;
  const bool sigmoid =
      link.op == OpKind::activation && link.attrs.act == Act::sigmoid && link.attrs.slope == 1;
  if (softmax && kind == Loss::cross_entropy_probabilities)
    kind = Loss::cross_entropy;
  else if (softmax && kind == Loss::kl_divergence_probabilities)
    kind = Loss::kl_divergence;
  else if (sigmoid && kind == Loss::bce)
    kind = Loss::bce_with_logits;
  else
    return;
  node.in[0] = link.in[0];
}

void fuse(Graph& graph, const std::vector<ValueId>& keep) {
  remove_dead(graph, keep);
  sum_before_spreading(graph);
  fold_norms(graph, keep);
  fuse_residuals(graph, keep);
  fuse_activations(graph, keep);
  fuse_derivatives(graph, keep);
  fuse_norm_derivatives(graph, keep);
  fuse_accumulation(graph, keep);
}

}  // namespace gemmule
