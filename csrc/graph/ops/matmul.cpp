// c = op(a) op(b), op by attrs.trans_a and trans_b; times f'(saved) once `fuse` has joined an activation's
// derivative to it, saved as the third input. A batched operand is the matrix (rows, features); where the
// product sums over the batch (a^T b of two batched operands) the result is not batched.
#include "graph/ops/ops.h"

namespace gemmule::ops {
namespace {

ValueInfo infer(const Graph& g, const std::vector<ValueId>& in, const Attrs& attrs) {
  const ValueInfo &a = g.info(in[0]), &b = g.info(in[1]);
  const auto fits = [](const ValueInfo& v) { return v.dims.rank() == (v.batched ? 1u : 2u); };
  require(fits(a) && fits(b), ErrorKind::shape, "matmul: ", a.dims, " and ", b.dims, " are not matrices");
  if (a.batched && b.batched) {
    require(attrs.trans_a && !attrs.trans_b, ErrorKind::shape, "matmul: two batches multiply as a^T b");
    return {Shape{a.dims[0], b.dims[0]}, false, a.type};
  }
  require(a.batched && !b.batched && !attrs.trans_a, ErrorKind::shape, "matmul: a batch stands on the left");
  const std::size_t inner = attrs.trans_b ? 1 : 0;
  require(a.dims[0] == b.dims[inner], ErrorKind::shape, "matmul: inner dimensions of (batch, ", a.dims[0],
          ") and ", b.dims, " differ");
  return {Shape{b.dims[1 - inner]}, true, a.type};
}

double cost(const Graph& g, const Node& node, Index rows) {
  const ValueInfo &a = g.info(node.in[0]), &b = g.info(node.in[1]);
  return b.batched ? 2.0 * static_cast<double>(rows) * static_cast<double>(a.dims.count()) *
                         static_cast<double>(b.dims.count())
                   : 2.0 * static_cast<double>(rows) * static_cast<double>(b.dims.count());
}

}  // namespace

const OpRule matmul{"matmul", infer, nullptr, cost};

}  // namespace gemmule::ops
