#include <algorithm>

#include "graph/op.h"
#include "graph/passes.h"

namespace gemmule {

void Adjoints::add(ValueId id, ValueId grad) {
  if (!wanted(id)) return;
  ValueId& sum = of_[static_cast<std::size_t>(id)];
  sum = sum == no_value ? grad : graph.apply(OpKind::add, {sum, grad}, {}, name(id));
}

namespace {

// A value is wanted if a trainable parameter (or a wanted input) reaches it. A Python op is always: its layer
// may have parameters of its own.
std::vector<bool> find_wanted(const Graph& graph, ValueId input, bool want_input) {
  std::vector<bool> wanted(graph.values.size(), false);
  for (const ParameterRef& p : graph.parameters) wanted[static_cast<std::size_t>(p.value)] = p.trainable;
  if (want_input) wanted[static_cast<std::size_t>(input)] = true;
  for (const Node& node : graph.nodes) {
    const bool reached = node.op == OpKind::python ||
                         std::any_of(node.in.begin(), node.in.end(),
                                     [&](ValueId id) { return wanted[static_cast<std::size_t>(id)]; });
    wanted[static_cast<std::size_t>(node.out)] = reached;
    if (node.op == OpKind::python) wanted[static_cast<std::size_t>(node.in[0])] = true;
  }
  return wanted;
}

}  // namespace

ValueId differentiate(Graph& graph, ValueId output, ValueId seed, ValueId input, bool want_input,
                      bool accumulate) {
  Adjoints adjoints(graph, find_wanted(graph, input, want_input));
  if (seed != no_value) adjoints.add(output, seed);
  const std::size_t forward = graph.nodes.size();
  for (std::size_t i = forward; i-- > 0;) {
    const Node node = graph.nodes[i];  // a copy: the rules append to the list
    const bool starts = seed == no_value && node.out == output;
    const ValueId grad = starts ? no_value : adjoints.of(node.out);
    if (grad != no_value || starts) rule(node.op).adjoint(adjoints, node, grad);
  }
  for (std::size_t i = 0; i < graph.parameters.size(); ++i) {
    const ParameterRef& p = graph.parameters[i];
    const ValueId grad = adjoints.of(p.value);
    if (grad == no_value) continue;
    Attrs attrs;
    attrs.accumulate = true;
    const ValueId sum =
        accumulate ? graph.apply(OpKind::add, {p.value, grad}, attrs, adjoints.name(p.value)) : grad;
    if (accumulate) {
      // grad += d: the add reads the gradient in place of the parameter, which has its shape.
      Value held = graph.value(p.value);
      held.name = "grad of " + held.name;
      held.home = Home::gradient;
      graph.values.push_back(held);
      graph.nodes.back().in[0] = static_cast<ValueId>(graph.values.size()) - 1;
    }
    graph.value(sum).home = Home::gradient;
    graph.value(sum).parameter = static_cast<int>(i);
  }
  return want_input ? adjoints.of(input) : no_value;
}

}  // namespace gemmule
