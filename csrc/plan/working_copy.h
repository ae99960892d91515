// The parameters of a training run in the form that its kernels like best: weight matrices in panels, so that
// nothing is packed from step to step. Taken from the stores when a run begins, put back when it ends.
#pragma once
#include <memory>
#include <vector>

#include "plan/optimizer.h"
#include "plan/program.h"

namespace gemmule {

// Whether the optimizer walks parameters one by one: false where a range of it covers part of one, or its
// rule takes matrices as wholes.
bool walks_singly(const Graph& graph, const Optimizer& optimizer);

// What rides on each node of the graph where parameters are trained as they are stored.
std::vector<UpdateTarget> stored_targets(const Graph& graph, const Optimizer& optimizer);

// For optimizers that walk parameters singly.
class WorkingCopy {
 public:
  // `graph`: of the program, marked by prefer_panels.
  WorkingCopy(const Backend& backend, const Graph& graph, const Optimizer& optimizer);

  // From here on the program's parameters and gradients are the copy's.
  void bind(Execution& execution) const;
  // What the optimizer walks within the copy, and what rides on each node of the graph.
  std::vector<ParameterRange> ranges() const;
  std::vector<UpdateTarget> targets() const;

  void take(const Team& team) const;  // values and slots from the stores
  // What the run changed, and the gradients where they are those of the last step.
  void put_back(const Team& team, bool gradients) const;

 private:
  std::byte* mine(std::size_t parameter, std::byte* base) const;
  // Moves one array of a parameter between its store and the copy; this member's part.
  enum class Way { in, out };
  void move(Way way, std::size_t parameter, std::byte* store, std::byte* copy, const Team& team) const;
  void move_slots(Way way, std::size_t parameter, const Team& team) const;

  const Backend& backend_;
  const Graph& graph_;
  const Optimizer& optimizer_;
  std::shared_ptr<Store> store_;  // a segment for each parameter of the graph
  Arena slots_[max_slots];
};

}  // namespace gemmule
