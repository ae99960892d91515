// Normalization within a sample: attrs.groups groups of the channels, over all pixels (Wu and He 2018), or
// the last attrs.axes axes, where that is not 0 (Ba, Kiros and Hinton 2016).
//   group_norm       x [, gamma, beta where attrs.affine]
//                    -> y = act(gamma x^ + beta), once `fuse` has joined an activation, with
//                       x^ = (x - mean) / sqrt(variance + attrs.eps)
//                    and the statistics (n, 2) of a sample's n groups: mean, 1 / sqrt(variance + eps)
// gamma and beta are of the channels, or of the last axes. With d = dy act'(saved), the last input where
// attrs.act is not the identity:
//   group_norm_sums  dy, x, stats [, saved] -> (2, n): dbeta = sum of d, dgamma = sum of d x^
//   group_norm_grad  dy, x, stats [, gamma] [, saved]
//                    -> dx = (g - mean of g - x^ mean of g x^) / sqrt(variance + eps), with g = gamma d and
//                    the
//                       means over a group
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

const char* called(const Attrs& attrs) { return attrs.axes > 0 ? "layer_norm" : "group_norm"; }

// The shape of gamma.
Shape factors(const Shape& x, const Attrs& attrs) {
  if (attrs.axes == 0) return {x.back()};
  std::vector<Index> last;
  for (std::size_t i = x.rank() - static_cast<std::size_t>(attrs.axes); i < x.rank(); ++i)
    last.push_back(x[i]);
  return Shape(last);
}

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& x = g.info(in[0]);
  require(x.batched && x.type == g.type && x.dims.rank() > 0, ErrorKind::shape, called(attrs), ": x ", x.dims,
          " has no channels");
  require(attrs.axes >= 0 && static_cast<std::size_t>(attrs.axes) <= x.dims.rank(), ErrorKind::shape,
          "layer_norm: x ", x.dims, " has no ", attrs.axes, " axes");
  require(attrs.groups > 0 && x.dims.back() % attrs.groups == 0, ErrorKind::shape, "group_norm: groups is ",
          attrs.groups, ", which does not divide the channels of x ", x.dims);
  for (std::size_t i = 1; attrs.affine && i < 3; ++i)
    require(g.info(in[i]).dims == factors(x.dims, attrs), ErrorKind::shape, called(attrs), ": ",
            i == 1 ? "gamma " : "beta ", g.info(in[i]).dims, " does not fit x ", x.dims);
  return x;
}

ValueInfo infer_stats(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& x = infer(g, in, attrs);
  const Index groups = attrs.axes > 0 ? x.dims.count() / factors(x.dims, attrs).count() : attrs.groups;
  return {{groups, 2}, true, x.type};
}

ValueInfo infer_sums(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  return {{2, factors(g.info(in[1]).dims, attrs).count()}, false, g.type};
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  Graph& g = adjoints.graph;
  const ValueId x = node.in[0];
  const ValueId gamma = node.attrs.affine ? node.in[1] : no_value;
  const ValueId beta = node.attrs.affine ? node.in[2] : no_value;
  if (adjoints.wanted(gamma) || adjoints.wanted(beta)) {
    const ValueId sums =
        g.apply(OpKind::group_norm_sums, {dy, x, node.also}, node.attrs, adjoints.name(node.also));
    const auto take = [&](ValueId parameter, Index row) {
      if (!adjoints.wanted(parameter)) return;
      Attrs attrs;
      attrs.row = row;
      attrs.dims = g.info(parameter).dims.dims();
      adjoints.add(parameter, g.apply(OpKind::row, {sums}, attrs, adjoints.name(parameter)));
    };
    take(beta, 0);
    take(gamma, 1);
  }
  if (!adjoints.wanted(x)) return;
  std::vector<ValueId> in{dy, x, node.also};
  if (node.attrs.affine) in.push_back(gamma);
  adjoints.add(x, g.apply(OpKind::group_norm_grad, std::move(in), node.attrs, adjoints.name(x)));
}

double cost(const Graph& g, const Node& node, Index rows) { return per_element(8, g, node, rows); }
double cost_of_sums(const Graph& g, const Node& node, Index rows) {
  return 5.0 * static_cast<double>(g.count(node.in[1], rows));
}
double cost_of_grad(const Graph& g, const Node& node, Index rows) { return per_element(10, g, node, rows); }

}  // namespace

const OpRule group_norm{"group_norm", infer, adjoint, cost, 0, infer_stats, "statistics"};
const OpRule group_norm_sums{"group_norm_sums", infer_sums, nullptr, cost_of_sums};
const OpRule group_norm_grad{"group_norm_grad", same_as_first, nullptr, cost_of_grad, 0};

}  // namespace gemmule::ops
