#include <algorithm>

#include "graph/op.h"
#include "graph/passes.h"

namespace gemmule {
namespace {

bool makes_gradient(const Graph& graph, const Node& node) {
  return graph.value(node.out).home == Home::gradient;
}

// A matrix is the weight of dense ops (x W^T) and of their adjoints (dz W), a vector their bias.
bool reads_as_dense(const Node& node, std::size_t place, bool matrix) {
  if (matrix)
    return place == 1 && (node.op == OpKind::dense || (node.op == OpKind::matmul && !node.attrs.trans_b));
  return place == 2 && node.op == OpKind::dense;
}

}  // namespace

bool updates_may_ride(const Graph& graph) {
  bool any = false;
  for (const Node& node : graph.nodes) {
    // Python may look at the parameters, and may throw.
    if (is_python(node.op)) return false;
    // Kernels that round what they pack read matrices as they are stored.
    if (node.attrs.precision != Precision::full) return false;
    any |= makes_gradient(graph, node);
    if (makes_gradient(graph, node) && node.op != OpKind::matmul && node.op != OpKind::sum_rows) return false;
    for (std::size_t i = 0; i < node.in.size(); ++i) {
      const Value& value = graph.value(node.in[i]);
      if (value.home == Home::gradient) return false;
      if (value.home == Home::parameter && !reads_as_dense(node, i, value.info.dims.rank() == 2))
        return false;
    }
  }
  return any;
}

void prefer_panels(Graph& graph) {
  for (ParameterRef& p : graph.parameters) p.panels = graph.info(p.value).dims.rank() == 2;
}

void prefer_listed(Graph& graph, ValueId input, Index outputs) {
  std::vector<ValueId> views{input};
  for (const Node& node : graph.nodes)
    for (std::size_t i = 0; i < node.in.size(); ++i) {
      if (std::find(views.begin(), views.end(), node.in[i]) == views.end()) continue;
      const bool makes_z = node.op == OpKind::dense && i == 0 && graph.info(node.out).dims.back() <= outputs;
      const bool makes_dw = node.op == OpKind::matmul && i == 1 && makes_gradient(graph, node);
      if (node.op == OpKind::reshape)
        views.push_back(node.out);
      else if (!makes_z && !makes_dw)
        return;
    }
  for (ValueId id : views) graph.value(id).listed = true;
}

int gather_gradients(Graph& graph) {
  const auto first = std::stable_partition(graph.nodes.begin(), graph.nodes.end(),
                                           [&](const Node& node) { return !makes_gradient(graph, node); });
  return static_cast<int>(first - graph.nodes.begin());
}

}  // namespace gemmule
