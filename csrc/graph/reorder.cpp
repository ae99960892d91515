#include <algorithm>

#include "graph/passes.h"

namespace gemmule {
namespace {

// Increasing in floating point too, whose derivative where several elements are the largest is the same for
// all of them.
bool keeps_order(const Node& node) {
  return node.op == OpKind::activation &&
         (node.attrs.act == Act::relu || (node.attrs.act == Act::leaky_relu && node.attrs.slope >= 0));
}

}  // namespace

void pool_first(Graph& graph, const std::vector<ValueId>& keep) {
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].op != OpKind::max_pool) continue;
    const ValueId h = graph.nodes[i].in[0];
    const int before = graph.producer(h);
    if (before < 0 || !keeps_order(graph.nodes[static_cast<std::size_t>(before)])) continue;
    if (graph.readers(h) != 1 || std::find(keep.begin(), keep.end(), h) != keep.end()) continue;
    // z -> activation -> h -> max_pool -> y becomes z -> max_pool -> pooled -> activation -> y.
    graph.values.push_back(graph.value(graph.nodes[i].out));
    const ValueId pooled = static_cast<ValueId>(graph.values.size()) - 1;
    graph.value(pooled).name += " of z";
    Node activation = graph.nodes[static_cast<std::size_t>(before)];
    Node& pool = graph.nodes[i];
    pool.in[0] = activation.in[0];
    activation.out = pool.out;
    activation.in[0] = pool.out = pooled;
    graph.nodes.insert(graph.nodes.begin() + static_cast<std::ptrdiff_t>(i) + 1, std::move(activation));
    graph.nodes.erase(graph.nodes.begin() + before);
  }
}

}  // namespace gemmule
