#include "plan/state_update.h"

#include <algorithm>
#include <cstring>

namespace gemmule {

StateUpdate::StateUpdate(const Graph& graph) {
  std::vector<int> seen;
  for (const Node& node : graph.nodes) {
    const Value& value = graph.value(node.out);
    if (value.home != Home::next_state || std::count(seen.begin(), seen.end(), value.parameter)) continue;
    seen.push_back(value.parameter);
    const ParameterRef& p = graph.parameters[static_cast<std::size_t>(value.parameter)];
    const auto segment = static_cast<std::size_t>(p.segment);
    const Index offset = p.store->offsets()[segment] * size_of(p.store->type());
    places_.push_back({p.store->values() + offset, p.store->grads() + offset,
                       static_cast<std::size_t>(p.store->counts()[segment] * size_of(p.store->type()))});
    held_.push_back(p.store);
  }
}

void StateUpdate::begin() const {
  for (const Place& p : places_) std::memcpy(p.next, p.state, p.bytes);
}

void StateUpdate::commit() const {
  for (const Place& p : places_) std::memcpy(p.state, p.next, p.bytes);
}

}  // namespace gemmule
