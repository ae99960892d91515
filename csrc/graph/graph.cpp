#include "graph/graph.h"

#include <algorithm>

#include "graph/op.h"

namespace gemmule {

ValueId Graph::input(Shape dims, std::string name, DType dtype) {
  dims.count();  // checks
  values.push_back({{std::move(dims), true, dtype}, std::move(name), Home::external, -1});
  return static_cast<ValueId>(values.size()) - 1;
}

ValueId Graph::parameter(std::shared_ptr<Store> store, int segment, Shape dims, bool trainable,
                         std::string name) {
  for (const ParameterRef& p : parameters)
    if (p.store == store && p.segment == segment) return p.value;
  require(segment >= 0 && static_cast<std::size_t>(segment) < store->counts().size(), ErrorKind::value,
          "parameter '", name, "': the store has no segment ", segment);
  const Index count = store->counts()[static_cast<std::size_t>(segment)];
  require(dims.count() == count, ErrorKind::shape, "parameter '", name, "': shape ", dims, " does not hold ",
          count, " elements");
  require(store->type() == type, ErrorKind::dtype, "parameter '", name, "' is ", name_of(store->type()),
          ", its graph ", name_of(type));
  const int index = static_cast<int>(parameters.size());
  values.push_back({{std::move(dims), false, type}, std::move(name), Home::parameter, index});
  const ValueId id = static_cast<ValueId>(values.size()) - 1;
  parameters.push_back({std::move(store), segment, trainable, id});
  return id;
}

ValueId Graph::apply(OpKind op, std::vector<ValueId> in, Attrs attrs, std::string name) {
  for (ValueId id : in)
    require(id >= 0 && static_cast<std::size_t>(id) < values.size(), ErrorKind::value, rule(op).name,
            ": the graph has no value ", id);
  ValueInfo info = rule(op).infer(*this, in, attrs);
  info.dims.count();  // checks
  ValueId also = no_value;
  if (rule(op).infer_also) {
    ValueInfo second = rule(op).infer_also(*this, in, attrs);
    second.dims.count();
    values.push_back({std::move(second), name + ": " + rule(op).also, Home::arena, -1});
    also = static_cast<ValueId>(values.size()) - 1;
  }
  values.push_back({std::move(info), std::move(name), Home::arena, -1});
  const ValueId out = static_cast<ValueId>(values.size()) - 1;
  nodes.push_back({op, std::move(in), out, std::move(attrs), also});
  return out;
}

int Graph::producer(ValueId id) const {
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (nodes[i].out == id || (id != no_value && nodes[i].also == id)) return static_cast<int>(i);
  return -1;
}

int Graph::readers(ValueId id) const {
  int count = 0;
  for (const Node& node : nodes) count += static_cast<int>(std::count(node.in.begin(), node.in.end(), id));
  return count;
}

Index Graph::count(ValueId id, Index rows) const {
  const ValueInfo& v = info(id);
  return v.batched ? checked_mul(rows, v.dims.count()) : v.dims.count();
}

}  // namespace gemmule
