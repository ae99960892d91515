// What changes the shape of values, or whole channels of them, as ops of the graph.
#include "cpu/layout.h"
#include "cpu/ops.h"
#include "cpu/resize.h"

namespace gemmule::cpu {
namespace {

Frame frame_of(const OpCall& call, const Operand& images) {
  return {images.rows, images.dims[0], images.dims[1], images.dims[2], call.attrs.window};
}

template <class T>
void pad(const OpCall& call) {
  cpu::pad(call.team, frame_of(call, call.in[0]), call.in[0].as<const T>(), call.out.as<T>());
}

template <class T>
void crop(const OpCall& call) {
  cpu::crop(call.team, frame_of(call, call.out), call.in[0].as<const T>(), call.out.as<T>());
}

Index rows_of(const Operand& x) { return x.inner > 0 ? x.count() / x.inner : 0; }

template <class T>
void concat(const OpCall& call) {
  Index first = 0;
  for (const Operand& x : call.in) {
    copy_columns(call.team, rows_of(x), x.inner, x.as<const T>(), x.inner, call.out.as<T>() + first,
                 call.out.inner);
    first += x.inner;
  }
}

template <class T>
void slice(const OpCall& call) {
  const Operand& x = call.in[0];
  copy_columns(call.team, rows_of(x), call.out.inner, x.as<const T>() + call.attrs.first, x.inner,
               call.out.as<T>(), call.out.inner);
}

Resizing resizing_of(const OpCall& call, const Operand& image, const Operand& result) {
  const Attrs& attrs = call.attrs;
  return {attrs.resize,
          image.rows,
          image.dims[2],
          {image.dims[0], result.dims[0], attrs.scale[0]},
          {image.dims[1], result.dims[1], attrs.scale[1]}};
}

template <class T>
void resize(const OpCall& call) {
  cpu::resize(call.team, resizing_of(call, call.in[0], call.out), call.in[0].as<const T>(), call.out.as<T>(),
              call.workspace);
}

template <class T>
void resize_grad(const OpCall& call) {
  cpu::resize_grad(call.team, resizing_of(call, call.out, call.in[0]), call.in[0].as<const T>(),
                   call.out.as<T>(), call.workspace);
}

template <class T>
void channel_dropout(const OpCall& call) {
  const Operand& x = call.out;
  const DropoutArgs args{call.scalars.key, call.scalars.step, call.attrs.layer, call.attrs.rate};
  cpu::channel_dropout(call.team, args, call.scalars.before, x.rows, x.inner > 0 ? x.cols / x.inner : 0,
                       x.inner, call.in[0].as<const T>(), x.as<T>(), static_cast<T*>(call.workspace));
}

}  // namespace

template <class T>
CpuOp layout_op(OpKind op) {
  constexpr auto path_of_resize = [](const OpCall& call) { return name_of(call.attrs.resize); };
  switch (op) {
    case OpKind::pad:
      return {pad<T>};
    case OpKind::crop:
      return {crop<T>};
    case OpKind::concat:
      return {concat<T>};
    case OpKind::slice:
      return {slice<T>};
    case OpKind::resize:
      return {resize<T>,
              [](const OpCall& call) { return resize_workspace<T>(resizing_of(call, call.in[0], call.out)); },
              path_of_resize};
    case OpKind::resize_grad:
      return {resize_grad<T>,
              [](const OpCall& call) { return resize_workspace<T>(resizing_of(call, call.out, call.in[0])); },
              path_of_resize};
    case OpKind::channel_dropout:
      return {channel_dropout<T>,
              [](const OpCall& call) { return call.out.inner * static_cast<Index>(sizeof(T)); }};
    default:
      return {};
  }
}

template CpuOp layout_op<float>(OpKind);
template CpuOp layout_op<double>(OpKind);

}  // namespace gemmule::cpu
