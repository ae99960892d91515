// The end of a product: which part of it the kernels do in registers, and the rest.
#pragma once
#include "cpu/gemm.h"

namespace gemmule::cpu {

// What the micro-kernel applies to a tile while it is in registers.
template <class T>
Act act_in_registers(const Gemm<T>& call) {
  const bool cheap = call.act == Act::relu || call.act == Act::leaky_relu;
  return cheap && !call.saved ? call.act : Act::identity;
}

// What it leaves: the other activations and the derivatives, over rows that were just written.
template <class T>
void finish_rows(const Kernels<T>& kernels, const Gemm<T>& call, Span rows, Span cols) {
  if (call.act == Act::identity || act_in_registers(call) == call.act) return;
  for (Index i = rows.begin; i < rows.end; ++i) {
    T* row = call.c + i * call.c_row + cols.begin;
    if (call.saved)
      kernels.element.activation_grad(call.act, call.slope, cols.size(), row,
                                      call.saved + i * call.b.cols + cols.begin, row);
    else
      kernels.element.activation(call.act, call.slope, cols.size(), row, row);
  }
}

}  // namespace gemmule::cpu
