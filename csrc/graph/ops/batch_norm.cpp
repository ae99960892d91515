// Normalization over the batch, and over the pixels of images. Ioffe and Szegedy 2015.
//   batch_stats    x (batch, ..., C) -> stats (3, C): mean, 1 / sqrt(variance + attrs.eps), unbiased variance
//   running_stats  mean (C,), variance (C,) -> the same of given ones
//   track          state <- (1 - attrs.momentum) state + attrs.momentum (row attrs.row of stats); a negative
//                  variance, that of a single element, is left out
//   batch_norm     x, stats [, gamma, beta where attrs.affine] [, r where attrs.residual]
//                  -> y = act(gamma (x - mean) / sqrt(variance + eps) + beta + r), once `fuse` has joined
//                  them
//   fold_norm      stats [, gamma, beta] [, bias] -> (2, C): scale and shift with
//                  scale (z + bias) + shift' = batch_norm(z + bias) for a product z, see fold_norms
// With d = dy act'(saved), the last input where attrs.act is not the identity, and n elements of a channel:
//   batch_norm_sums  dy, x, stats [, saved] -> (2, C): dbeta = sum of d, dgamma = sum of d x^
//   batch_norm_grad  dy, x, stats [, gamma] [, sums] [, saved]
//                    -> dx = gamma / sqrt(variance + eps) (d - dbeta / n - x^ dgamma / n); without the sums
//                       where stats are not those of x (attrs.constant)
// where x^ = (x - mean) / sqrt(variance + eps).
//   row            x (R, n) -> row attrs.row of it, of the shape attrs.dims where there is one
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo vectors(Index count, Index channels, DType type) { return {{count, channels}, false, type}; }

ValueInfo infer_stats(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  const ValueInfo& x = g.info(in[0]);
  require(x.batched && x.dims.rank() > 0, ErrorKind::shape, "batch_stats: x ", x.dims, " has no channels");
  return vectors(3, x.dims.back(), x.type);
}

ValueInfo infer_running(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  return vectors(3, g.info(in[0]).dims.back(), g.type);
}

ValueInfo infer_row(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  return {attrs.dims.empty() ? Shape{g.info(in[0]).dims[1]} : Shape(attrs.dims), false, g.type};
}

ValueInfo infer_norm(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo& x = g.info(in[0]);
  const Shape channels{x.dims.back()};
  require(g.info(in[1]).dims == Shape{3, x.dims.back()}, ErrorKind::shape, "batch_norm: stats ",
          g.info(in[1]).dims, " do not fit x ", x.dims);
  for (std::size_t i = 2; attrs.affine && i < 4; ++i)
    require(g.info(in[i]).dims == channels, ErrorKind::shape, "batch_norm: ", i == 2 ? "gamma " : "beta ",
            g.info(in[i]).dims, " does not fit x ", x.dims);
  return x;
}

ValueInfo infer_fold(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  return vectors(2, g.info(in[0]).dims[1], g.type);
}

ValueInfo infer_sums(const Graph& g, const std::vector<ValueId>& in, const Attrs&) {
  return vectors(2, g.info(in[1]).dims.back(), g.type);
}

void adjoint(Adjoints& adjoints, const Node& node, ValueId dy) {
  Graph& g = adjoints.graph;
  const ValueId x = node.in[0], stats = node.in[1];
  const ValueId gamma = node.attrs.affine ? node.in[2] : no_value;
  const ValueId beta = node.attrs.affine ? node.in[3] : no_value;
  if (!node.attrs.constant || adjoints.wanted(gamma) || adjoints.wanted(beta)) {
    const ValueId sums = g.apply(OpKind::batch_norm_sums, {dy, x, stats}, {}, adjoints.name(node.in[1]));
    const auto take = [&](ValueId parameter, Index row) {
      if (!adjoints.wanted(parameter)) return;
      Attrs attrs;
      attrs.row = row;
      adjoints.add(parameter, g.apply(OpKind::row, {sums}, attrs, adjoints.name(parameter)));
    };
    take(beta, 0);
    take(gamma, 1);
    if (!node.attrs.constant && adjoints.wanted(x)) {
      std::vector<ValueId> in{dy, x, stats};
      if (node.attrs.affine) in.push_back(gamma);
      in.push_back(sums);
      Attrs attrs;
      attrs.affine = node.attrs.affine;
      adjoints.add(x, g.apply(OpKind::batch_norm_grad, std::move(in), attrs, adjoints.name(x)));
    }
  }
  if (node.attrs.constant && adjoints.wanted(x)) {
    std::vector<ValueId> in{dy, x, stats};
    if (node.attrs.affine) in.push_back(gamma);
    Attrs attrs;
    attrs.affine = node.attrs.affine;
    attrs.constant = true;
    adjoints.add(x, g.apply(OpKind::batch_norm_grad, std::move(in), attrs, adjoints.name(x)));
  }
}

// Statistics follow from what is normalized, and the adjoint of batch_norm counts that in.
void none(Adjoints&, const Node&, ValueId) {}

double cost_of_stats(const Graph& g, const Node& node, Index rows) {
  return 4.0 * static_cast<double>(g.count(node.in[0], rows));
}
double cost_of_norm(const Graph& g, const Node& node, Index rows) { return per_element(4, g, node, rows); }
double cost_of_sums(const Graph& g, const Node& node, Index rows) {
  return 4.0 * static_cast<double>(g.count(node.in[1], rows));
}
double cost_of_grad(const Graph& g, const Node& node, Index rows) { return per_element(6, g, node, rows); }
double per_channel(const Graph& g, const Node& node, Index rows) { return per_element(3, g, node, rows); }

}  // namespace

const OpRule batch_stats{"batch_stats", infer_stats, none, cost_of_stats};
const OpRule running_stats{"running_stats", infer_running, none, per_channel};
const OpRule track{"track", infer_row, nullptr, per_channel};
const OpRule batch_norm{"batch_norm", infer_norm, adjoint, cost_of_norm, 0};
const OpRule batch_norm_sums{"batch_norm_sums", infer_sums, nullptr, cost_of_sums};
const OpRule batch_norm_grad{"batch_norm_grad", same_as_first, nullptr, cost_of_grad, 0};
const OpRule fold_norm{"fold_norm", infer_fold, nullptr, per_channel};
const OpRule row{"row", infer_row, nullptr, per_channel};

}  // namespace gemmule::ops
