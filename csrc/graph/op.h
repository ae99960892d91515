// The rules of an op. One file each in graph/ops/ gives them, and ops.cpp lists them; what an op computes is
// the backend's.
#pragma once
#include "graph/graph.h"

namespace gemmule {

// The adjoints collected so far while the graph is walked backwards. An adjoint rule emits ops into the graph
// and adds their results here; a value read twice sums what it receives.
class Adjoints {
 public:
  Adjoints(Graph& graph, std::vector<bool> wanted) : graph(graph), wanted_(std::move(wanted)) {
    of_.resize(wanted_.size(), no_value);
  }
  bool wanted(ValueId id) const {
    return id != no_value && static_cast<std::size_t>(id) < wanted_.size() &&
           wanted_[static_cast<std::size_t>(id)];
  }
  ValueId of(ValueId id) const { return of_[static_cast<std::size_t>(id)]; }
  void add(ValueId id, ValueId grad);
  // The usual name of the adjoint of a value.
  std::string name(ValueId id) const { return "d(" + graph.value(id).name + ")"; }

  Graph& graph;

 private:
  std::vector<bool> wanted_;
  std::vector<ValueId> of_;
};

struct OpRule {
  const char* name;
  // What the op makes of these inputs; throws ShapeError naming the op and the shapes.
  ValueInfo (*infer)(const Graph& graph, const std::vector<ValueId>& in, const Attrs& attrs);
  // Emits the ops that carry `grad`, the adjoint of the node's result, to its inputs. nullptr: an op of the
  // backward pass, differentiated only once. (The tangent rule, for forward-mode products, has its place
  // after this one.)
  void (*adjoint)(Adjoints& adjoints, const Node& node, ValueId grad);
  // Floating-point operations for a batch.
  double (*cost)(const Graph& graph, const Node& node, Index rows);
  // The input whose memory the result may take over, -1 for none.
  int in_place = -1;
  // The second value, Node::also, and what it is called; nullptr where there is none.
  ValueInfo (*infer_also)(const Graph& graph, const std::vector<ValueId>& in, const Attrs& attrs) = nullptr;
  const char* also = nullptr;
};

const OpRule& rule(OpKind op);

// Ops that call Python: the plan runs them, with no team alive.
inline bool is_python(OpKind op) {
  return op == OpKind::python || op == OpKind::python_grad || op == OpKind::python_loss ||
         op == OpKind::python_loss_grad;
}

}  // namespace gemmule
