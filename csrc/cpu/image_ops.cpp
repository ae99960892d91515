// Convolution and pooling as ops of the graph.
#include "cpu/conv.h"
#include "cpu/dispatch.h"
#include "cpu/ops.h"
#include "cpu/pool.h"

namespace gemmule::cpu {
namespace {

// The image x of a convolution, the result z and its filters.
ConvSizes conv_sizes(const OpCall& call, const Operand& x, const Operand& weight) {
  ConvSizes s;
  s.images = x.rows;
  s.height = x.dims[0];
  s.width = x.dims[1];
  s.channels = x.dims[2];
  s.filters = weight.rows;
  s.groups = call.attrs.groups;
  s.window = call.attrs.window;
  s.strict = call.attrs.strict;
  return s;
}

template <class T>
ConvForward<T> conv_forward(const OpCall& call) {
  const Attrs& attrs = call.attrs;
  ConvForward<T> conv{conv_sizes(call, call.in[0], call.in[1]), call.in[0].as<const T>(),
                      call.in[1].as<const T>()};
  if (call.in.size() > (attrs.residual ? 3U : 2U)) conv.bias = call.in[2].as<const T>();
  if (attrs.scaled) {  // a row of scales, then one of biases
    conv.scale = conv.bias;
    conv.bias += conv.sizes.filters;
  }
  if (attrs.residual) conv.residual = call.in.back().as<const T>();
  conv.act = attrs.act;
  conv.slope = static_cast<T>(attrs.slope);
  conv.z = call.out.as<T>();
  return conv;
}

template <class T>
ConvData<T> conv_data(const OpCall& call) {
  const Attrs& attrs = call.attrs;
  ConvData<T> conv{conv_sizes(call, call.out, call.in[1]), call.in[0].as<const T>(),
                   call.in[1].as<const T>()};
  const bool biased = attrs.transposed && call.in.size() > (attrs.residual ? 3U : 2U);
  if (biased) conv.bias = call.in[2].as<const T>();
  if (attrs.residual) conv.residual = call.in[biased ? 3 : 2].as<const T>();
  if (attrs.act != Act::identity && !attrs.transposed) conv.saved = call.in.back().as<const T>();
  conv.act = attrs.act;
  conv.slope = static_cast<T>(attrs.slope);
  conv.dx = call.out.as<T>();
  return conv;
}

template <class T>
ConvWeights<T> conv_weights(const OpCall& call) {
  return {conv_sizes(call, call.in[1], call.out), call.in[0].as<const T>(), call.in[1].as<const T>(),
          call.out.as<T>(), adds(call)};
}

// The op whose kernel call `describe` makes.
template <class T, auto describe>
constexpr CpuOp convolution() {
  return {[](const OpCall& call) { conv(kernels<T>(), call.team, describe(call), call.workspace); },
          [](const OpCall& call) { return conv_workspace(kernels<T>(), describe(call)); },
          [](const OpCall& call) { return conv_path(describe(call)); }};
}

PoolShape pool_over(const Operand& images, const Attrs& attrs) {
  return pool_shape(attrs.window, images.dims, attrs.count_padding);
}

template <class T>
void max_pool(const OpCall& call) {
  cpu::max_pool(call.team, pool_over(call.in[0], call.attrs), call.in[0].rows, call.in[0].as<const T>(),
                call.out.as<T>(), call.also.as<std::uint8_t>());
}

template <class T>
void max_pool_grad(const OpCall& call) {
  cpu::max_pool_grad(call.team, pool_over(call.out, call.attrs), call.out.rows, call.in[0].as<const T>(),
                     call.in[1].as<const std::uint8_t>(), call.out.as<T>());
}

template <class T>
void avg_pool(const OpCall& call) {
  cpu::avg_pool(call.team, pool_over(call.in[0], call.attrs), call.in[0].rows, call.in[0].as<const T>(),
                call.out.as<T>());
}

template <class T>
void avg_pool_grad(const OpCall& call) {
  cpu::avg_pool_grad(call.team, pool_over(call.out, call.attrs), call.out.rows, call.in[0].as<const T>(),
                     call.out.as<T>());
}

}  // namespace

template <class T>
CpuOp image_op(OpKind op) {
  switch (op) {
    case OpKind::conv2d:
      return convolution<T, conv_forward<T>>();
    case OpKind::conv2d_data:
      return convolution<T, conv_data<T>>();
    case OpKind::conv2d_weights:
      return convolution<T, conv_weights<T>>();
    case OpKind::max_pool:
      return {max_pool<T>};
    case OpKind::max_pool_grad:
      return {max_pool_grad<T>};
    case OpKind::avg_pool:
      return {avg_pool<T>};
    case OpKind::avg_pool_grad:
      return {avg_pool_grad<T>};
    default:
      return {};
  }
}

template CpuOp image_op<float>(OpKind);
template CpuOp image_op<double>(OpKind);

}  // namespace gemmule::cpu
