// Normalization within a sample as ops of the graph.
#include "cpu/dispatch.h"
#include "cpu/group_norm.h"
#include "cpu/ops.h"

namespace gemmule::cpu {
namespace {

GroupNormSizes sizes_of(const Operand& x, const Attrs& attrs) {
  GroupNormSizes sizes;
  if (attrs.axes > 0) {
    for (const Index d : x.dims.last(static_cast<std::size_t>(attrs.axes))) sizes.channels *= d;
    sizes.samples = x.count() / sizes.channels;
  } else {
    sizes.samples = x.rows;
    sizes.pixels = x.cols / x.inner;
    sizes.groups = attrs.groups;
    sizes.channels = x.inner / attrs.groups;
  }
  return sizes;
}

template <class T>
GroupNorm<T> group_norm(const OpCall& call) {
  GroupNorm<T> norm{sizes_of(call.in[0], call.attrs), call.in[0].as<const T>()};
  if (call.attrs.affine) {
    norm.gamma = call.in[1].as<const T>();
    norm.beta = call.in[2].as<const T>();
  }
  norm.eps = call.attrs.eps;
  norm.act = call.attrs.act;
  norm.slope = static_cast<T>(call.attrs.slope);
  norm.y = call.out.as<T>();
  norm.stats = call.also.as<T>();
  return norm;
}

template <class T>
const T* saved(const OpCall& call) {
  return call.attrs.act == Act::identity ? nullptr : call.in.back().as<const T>();
}

template <class T>
GroupNormGrad<T> group_norm_grad(const OpCall& call) {
  GroupNormGrad<T> norm{sizes_of(call.in[1], call.attrs), call.in[0].as<const T>(), call.in[1].as<const T>(),
                        call.in[2].as<const T>()};
  if (call.attrs.affine) norm.gamma = call.in[3].as<const T>();
  norm.saved = saved<T>(call);
  norm.act = call.attrs.act;
  norm.slope = static_cast<T>(call.attrs.slope);
  norm.dx = call.out.as<T>();
  return norm;
}

template <class T>
GroupNormSums<T> group_norm_sums(const OpCall& call) {
  GroupNormSums<T> norm{sizes_of(call.in[1], call.attrs), call.in[0].as<const T>(), call.in[1].as<const T>(),
                        call.in[2].as<const T>()};
  norm.saved = saved<T>(call);
  norm.act = call.attrs.act;
  norm.slope = static_cast<T>(call.attrs.slope);
  norm.sums = call.out.as<T>();
  return norm;
}

// The op whose kernel call `describe` makes.
template <class T, auto describe, bool sums = false>
constexpr CpuOp within_samples() {
  return {[](const OpCall& call) { norm(call.team, describe(call), call.workspace); },
          [](const OpCall& call) { return group_norm_workspace<T>(describe(call).sizes, sums); }};
}

}  // namespace

template <class T>
CpuOp group_norm_op(OpKind op) {
  switch (op) {
    case OpKind::group_norm:
      return within_samples<T, group_norm<T>>();
    case OpKind::group_norm_grad:
      return within_samples<T, group_norm_grad<T>>();
    case OpKind::group_norm_sums:
      return within_samples<T, group_norm_sums<T>, true>();
    default:
      return {};
  }
}

template CpuOp group_norm_op<float>(OpKind);
template CpuOp group_norm_op<double>(OpKind);

}  // namespace gemmule::cpu
