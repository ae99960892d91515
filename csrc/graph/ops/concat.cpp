// concat: values side by side along the last axis, the channels.  slice, of its adjoint: the channels from
// attrs.first on, as many as attrs.dims has.
//   a (..., m), b (..., n), ... -> y (..., m + n + ...)
#include <algorithm>

#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

bool same_but_last(const Shape& a, const Shape& b) {
  return a.rank() == b.rank() && a.rank() > 0 &&
         std::equal(a.dims().begin(), a.dims().end() - 1, b.dims().begin());
}

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  require(!in.empty(), ErrorKind::value, "concat: there is nothing to put side by side");
  const ValueInfo& first = g.info(in[0]);
  Index channels = 0;
  for (ValueId id : in) {
    const ValueInfo& x = g.info(id);
    require(same_but_last(x.dims, first.dims) && x.batched == first.batched && x.type == first.type,
            ErrorKind::shape, "concat: shapes ", first.dims, " and ", x.dims, " differ beside the channels");
    channels = checked_add(channels, x.dims.back());
  }
  std::vector<Index> dims = first.dims.dims();
  dims.back() = channels;
  return {Shape(std::move(dims)), first.batched, first.type};
}

ValueInfo infer_slice(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& y = g.info(in[0]);
  const Shape dims(attrs.dims);
  require(same_but_last(dims, y.dims) && attrs.first >= 0 && attrs.first <= y.dims.back() - dims.back(),
          ErrorKind::shape, "slice: ", dims, " at channel ", attrs.first, " is no part of ", y.dims);
  return {dims, y.batched, y.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  Graph& g = adjoints.graph;
  Attrs attrs;
  for (ValueId x : node.in) {
    attrs.dims = g.info(x).dims.dims();
    if (adjoints.wanted(x)) adjoints.add(x, g.apply(OpKind::slice, {dy}, attrs, adjoints.name(x)));
    attrs.first += attrs.dims.back();
  }
}

double cost(const Graph& g, const Node& node, Index rows) { return per_element(1, g, node, rows); }

}  // namespace

const OpRule concat{"concat", infer, adjoint, cost};
const OpRule slice{"slice", infer_slice, nullptr, cost};

}  // namespace gemmule::ops
