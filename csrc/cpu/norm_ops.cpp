// Normalization over the batch as ops of the graph.
#include <algorithm>
#include <cmath>

#include "cpu/dispatch.h"
#include "cpu/norm.h"
#include "cpu/ops.h"

namespace gemmule::cpu {
namespace {

NormSizes sizes_of(const Operand& x) { return {x.inner > 0 ? x.count() / x.inner : 0, x.inner}; }

template <class T>
BatchStats<T> batch_stats(const OpCall& call) {
  return {sizes_of(call.in[0]), call.in[0].as<const T>(), call.attrs.eps, call.out.as<T>()};
}

// Inputs behind the first ones are there or not, as attrs say; `next` counts them.
template <class T>
const T* optional(const OpCall& call, bool there, std::size_t& next) {
  return there ? call.in[next++].as<const T>() : nullptr;
}

template <class T>
BatchNorm<T> batch_norm(const OpCall& call) {
  std::size_t next = 2;
  BatchNorm<T> norm{sizes_of(call.in[0]), call.in[0].as<const T>(), call.in[1].as<const T>()};
  norm.gamma = optional<T>(call, call.attrs.affine, next);
  norm.beta = optional<T>(call, call.attrs.affine, next);
  norm.residual = optional<T>(call, call.attrs.residual, next);
  norm.act = call.attrs.act;
  norm.slope = static_cast<T>(call.attrs.slope);
  norm.y = call.out.as<T>();
  return norm;
}

template <class T>
BatchNormSums<T> batch_norm_sums(const OpCall& call) {
  std::size_t next = 3;
  BatchNormSums<T> norm{sizes_of(call.in[1]), call.in[0].as<const T>(), call.in[1].as<const T>(),
                        call.in[2].as<const T>()};
  norm.saved = optional<T>(call, call.attrs.act != Act::identity, next);
  norm.act = call.attrs.act;
  norm.slope = static_cast<T>(call.attrs.slope);
  norm.sums = call.out.as<T>();
  return norm;
}

template <class T>
BatchNormGrad<T> batch_norm_grad(const OpCall& call) {
  std::size_t next = 3;
  BatchNormGrad<T> norm{sizes_of(call.in[1]), call.in[0].as<const T>(), call.in[1].as<const T>(),
                        call.in[2].as<const T>()};
  norm.gamma = optional<T>(call, call.attrs.affine, next);
  norm.sums = optional<T>(call, !call.attrs.constant, next);
  norm.saved = optional<T>(call, call.attrs.act != Act::identity, next);
  norm.act = call.attrs.act;
  norm.slope = static_cast<T>(call.attrs.slope);
  norm.dx = call.out.as<T>();
  return norm;
}

// The op whose kernel call `describe` makes.
template <class T, auto describe>
constexpr CpuOp over_batch() {
  return {[](const OpCall& call) { norm(call.team, describe(call), call.workspace); },
          [](const OpCall& call) { return norm_workspace<T>(describe(call).sizes); }};
}

// Vectors of a few hundred channels: the leading member makes them alone.
template <class T>
void running_stats(const OpCall& call) {
  if (!call.team.leads()) return;
  const T *mean = call.in[0].as<const T>(), *variance = call.in[1].as<const T>();
  T* const stats = call.out.as<T>();
  const Index channels = call.in[0].count();
  for (Index c = 0; c < channels; ++c) {
    stats[c] = mean[c];
    stats[channels + c] = static_cast<T>(1 / std::sqrt(static_cast<double>(variance[c]) + call.attrs.eps));
    stats[2 * channels + c] = variance[c];
  }
}

template <class T>
void track(const OpCall& call) {
  if (!call.team.leads()) return;
  const Index channels = call.out.count();
  const T* const now = call.in[0].as<const T>() + call.attrs.row * channels;
  T* const state = call.out.as<T>();
  const double momentum = call.attrs.momentum;
  const bool is_variance = call.attrs.row > 0;
  for (Index c = 0; c < channels; ++c)
    if (!is_variance || !(now[c] < 0))
      state[c] = static_cast<T>((1 - momentum) * static_cast<double>(state[c]) +
                                momentum * static_cast<double>(now[c]));
}

template <class T>
void fold_norm(const OpCall& call) {
  if (!call.team.leads()) return;
  std::size_t next = 1;
  const T* const stats = call.in[0].as<const T>();
  const T* const gamma = optional<T>(call, call.attrs.affine, next);
  const T* const beta = optional<T>(call, call.attrs.affine, next);
  const T* const bias = optional<T>(call, next < call.in.size(), next);
  T* const folded = call.out.as<T>();
  const Index channels = call.out.cols;
  for (Index c = 0; c < channels; ++c) {
    const double inverse = static_cast<double>(stats[channels + c]);
    const double scale = gamma ? static_cast<double>(gamma[c]) * inverse : inverse;
    const double about = (bias ? static_cast<double>(bias[c]) : 0.0) - static_cast<double>(stats[c]);
    folded[c] = static_cast<T>(scale);
    folded[channels + c] = static_cast<T>((beta ? static_cast<double>(beta[c]) : 0.0) + about * scale);
  }
}

template <class T>
void row(const OpCall& call) {
  if (!call.team.leads()) return;
  const Index n = call.out.count();
  const T* const x = call.in[0].as<const T>() + call.attrs.row * n;
  if (adds(call))
    kernels<T>().element.add(n, call.out.as<const T>(), x, call.out.as<T>());
  else
    std::copy_n(x, n, call.out.as<T>());
}

}  // namespace

template <class T>
CpuOp norm_op(OpKind op) {
  switch (op) {
    case OpKind::batch_stats:
      return over_batch<T, batch_stats<T>>();
    case OpKind::batch_norm:
      return over_batch<T, batch_norm<T>>();
    case OpKind::batch_norm_sums:
      return over_batch<T, batch_norm_sums<T>>();
    case OpKind::batch_norm_grad:
      return over_batch<T, batch_norm_grad<T>>();
    case OpKind::running_stats:
      return {running_stats<T>};
    case OpKind::track:
      return {track<T>};
    case OpKind::fold_norm:
      return {fold_norm<T>};
    case OpKind::row:
      return {row<T>};
    default:
      return {};
  }
}

template CpuOp norm_op<float>(OpKind);
template CpuOp norm_op<double>(OpKind);

}  // namespace gemmule::cpu
