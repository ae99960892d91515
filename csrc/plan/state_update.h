// State that training moves along: the running statistics of normalizations. A step makes the next state
// beside the old one, where gradients of parameters lie, and it takes the old one's place when the step is
// complete: what is interrupted changes nothing.
#pragma once
#include <vector>

#include "graph/graph.h"

namespace gemmule {

class StateUpdate {
 public:
  // Of what the graph's ops make.
  explicit StateUpdate(const Graph& graph);
  // The next state begins as the one that is.
  void begin() const;
  void commit() const;

 private:
  struct Place {
    std::byte *state, *next;
    std::size_t bytes;
  };
  std::vector<Place> places_;
  std::vector<std::shared_ptr<Store>> held_;
};

}  // namespace gemmule
