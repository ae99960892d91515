#include "plan/working_copy.h"

#include <algorithm>
#include <cstring>

namespace gemmule {
namespace {

struct Extent {
  Index begin, end;  // elements of its store
};

Extent extent_of(const ParameterRef& p) {
  const Index begin = p.store->offsets()[static_cast<std::size_t>(p.segment)];
  return {begin, begin + p.store->counts()[static_cast<std::size_t>(p.segment)]};
}

bool holds(const ParameterRange& range, const ParameterRef& p) {
  const Extent e = extent_of(p);
  return range.store == p.store && range.begin <= e.begin && e.end <= range.end;
}

bool touches(const ParameterRange& range, const ParameterRef& p) {
  const Extent e = extent_of(p);
  return range.store == p.store && range.begin < e.end && e.begin < range.end;
}

// The range of the optimizer that holds a parameter; nullptr where it is not updated.
const ParameterRange* range_of(const ParameterRef& p, const Optimizer& optimizer) {
  const auto& ranges = optimizer.ranges;
  const auto range =
      std::find_if(ranges.begin(), ranges.end(), [&](const ParameterRange& r) { return holds(r, p); });
  return range == ranges.end() ? nullptr : &*range;
}

// Where a parameter begins in an array that is as long as its store.
std::byte* place_of(const ParameterRef& p, std::byte* base) {
  return base + extent_of(p).begin * size_of(p.store->type());
}

void copy_part(Index bytes, const std::byte* from, std::byte* to, const Team& team) {
  const Span part = team.share(bytes, alignment);
  std::memcpy(to + part.begin, from + part.begin, static_cast<std::size_t>(part.size()));
}

}  // namespace

bool walks_singly(const Graph& graph, const Optimizer& optimizer) {
  if (takes_matrices(optimizer.rule, optimizer.args)) return false;
  for (const ParameterRef& p : graph.parameters)
    for (const ParameterRange& range : optimizer.ranges)
      if (touches(range, p) && !holds(range, p)) return false;
  return true;
}

std::vector<UpdateTarget> stored_targets(const Graph& graph, const Optimizer& optimizer) {
  std::vector<UpdateTarget> list(graph.nodes.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Value& value = graph.value(graph.nodes[i].out);
    if (value.home != Home::gradient) continue;
    const ParameterRef& p = graph.parameters[static_cast<std::size_t>(value.parameter)];
    const ParameterRange* range = range_of(p, optimizer);
    if (!range) continue;
    list[i].value = place_of(p, p.store->values());
    for (int k = 0; k < max_slots; ++k)
      if (range->slots[k]) list[i].slots[k] = place_of(p, range->slots[k]);
  }
  return list;
}

WorkingCopy::WorkingCopy(const Backend& backend, const Graph& graph, const Optimizer& optimizer)
    : backend_(backend), graph_(graph), optimizer_(optimizer) {
  std::vector<Index> counts;
  for (const ParameterRef& p : graph.parameters) {
    const Shape& dims = graph.info(p.value).dims;
    counts.push_back(p.panels ? backend.panel_elements(graph.type, dims[0], dims[1]) : dims.count());
  }
  store_ = std::make_shared<Store>(graph.type, counts);
  const auto& ranges = optimizer.ranges;
  for (int i = 0; i < max_slots; ++i)
    if (std::any_of(ranges.begin(), ranges.end(), [&](const ParameterRange& r) { return r.slots[i]; }))
      slots_[i] = Arena(checked_mul(store_->size(), size_of(graph.type)));
}

std::byte* WorkingCopy::mine(std::size_t parameter, std::byte* base) const {
  return base + store_->offsets()[parameter] * size_of(graph_.type);
}

void WorkingCopy::bind(Execution& execution) const {
  for (std::size_t id = 0; id < graph_.values.size(); ++id) {
    const Value& value = graph_.values[id];
    if (value.home != Home::parameter && value.home != Home::gradient) continue;
    execution.address[id] = mine(static_cast<std::size_t>(value.parameter),
                                 value.home == Home::parameter ? store_->values() : store_->grads());
  }
}

std::vector<ParameterRange> WorkingCopy::ranges() const {
  std::vector<ParameterRange> list;
  for (std::size_t i = 0; i < graph_.parameters.size(); ++i)
    if (range_of(graph_.parameters[i], optimizer_)) {
      ParameterRange range;
      range.store = store_;
      for (int k = 0; k < max_slots; ++k) range.slots[k] = slots_[k].data();
      range.begin = store_->offsets()[i];
      range.end = range.begin + store_->counts()[i];
      list.push_back(std::move(range));
    }
  return list;
}

std::vector<UpdateTarget> WorkingCopy::targets() const {
  std::vector<UpdateTarget> list(graph_.nodes.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Value& value = graph_.value(graph_.nodes[i].out);
    const auto parameter = static_cast<std::size_t>(value.parameter);
    if (value.home != Home::gradient || !range_of(graph_.parameters[parameter], optimizer_)) continue;
    list[i].value = mine(parameter, store_->values());
    for (int k = 0; k < max_slots; ++k)
      if (slots_[k].data()) list[i].slots[k] = mine(parameter, slots_[k].data());
  }
  return list;
}

void WorkingCopy::move(Way way, std::size_t parameter, std::byte* store, std::byte* copy,
                       const Team& team) const {
  const ParameterRef& p = graph_.parameters[parameter];
  const Shape& dims = graph_.info(p.value).dims;
  std::byte* theirs = place_of(p, store);
  std::byte* ours = mine(parameter, copy);
  if (!p.panels)
    copy_part(dims.count() * size_of(graph_.type), way == Way::in ? theirs : ours,
              way == Way::in ? ours : theirs, team);
  else if (way == Way::in)
    backend_.to_panels(graph_.type, dims[0], dims[1], theirs, ours, team);
  else
    backend_.from_panels(graph_.type, dims[0], dims[1], ours, theirs, team);
}

void WorkingCopy::move_slots(Way way, std::size_t parameter, const Team& team) const {
  const ParameterRange* range = range_of(graph_.parameters[parameter], optimizer_);
  for (int k = 0; k < max_slots; ++k)
    if (range && range->slots[k]) move(way, parameter, range->slots[k], slots_[k].data(), team);
}

void WorkingCopy::take(const Team& team) const {
  for (std::size_t i = 0; i < graph_.parameters.size(); ++i) {
    move(Way::in, i, graph_.parameters[i].store->values(), store_->values(), team);
    move_slots(Way::in, i, team);
  }
}

void WorkingCopy::put_back(const Team& team, bool gradients) const {
  for (const Node& node : graph_.nodes) {
    const Value& value = graph_.value(node.out);
    if (value.home != Home::gradient) continue;
    const auto i = static_cast<std::size_t>(value.parameter);
    const ParameterRef& p = graph_.parameters[i];
    if (gradients) move(Way::out, i, p.store->grads(), store_->grads(), team);
    if (!range_of(p, optimizer_)) continue;
    move(Way::out, i, p.store->values(), store_->values(), team);
    move_slots(Way::out, i, team);
  }
}

}  // namespace gemmule
