// Products with few rows, few columns or little depth: bound by memory, so the large operand is read once,
// as it lies, and nothing of it is packed.
#pragma once
#include "cpu/gemm.h"

namespace gemmule::cpu {

// Outer products, and sums of up to four: C is written row by row.
template <class T>
bool fits_outer(const Kernels<T>& kernels, const Gemm<T>& call);

// Rows of A as strips over a B row by row: y = x W, and products of little depth.
template <class T>
bool fits_strips(const Kernels<T>& kernels, const Gemm<T>& call);

// Both operands along the depth, a small one being copied so: y = x W^T = W x.
template <class T>
bool fits_dots(const Kernels<T>& kernels, const Gemm<T>& call);

// Many rows of A times a B of a vector or two a row, packed: one call for all rows.
template <class T>
bool fits_narrow(const Kernels<T>& kernels, const Gemm<T>& call);

// A single column as a single row: C^T = B^T A^T, where C^T is a row in memory too.
template <class T>
bool is_plain_column(const Gemm<T>& call) {
  return call.b.cols == 1 && call.a.rows > 1 && call.c_row == 1 && !call.bias &&
         call.b_form == Form::strided && call.c_form == Form::strided;
}
template <class T>
Gemm<T> as_row(const Gemm<T>& column) {
  Gemm<T> row = column;
  row.a = column.b.transposed();
  row.b = column.a.transposed();
  row.c_row = column.a.rows;
  return row;
}

// Bytes of workspace for this product, or one with fewer rows, on any of these paths.
template <class T>
Index skinny_workspace(const Kernels<T>& kernels, const Gemm<T>& call);

template <class T>
void outer(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call);
template <class T>
void strips(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call);
template <class T>
void dots(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace);
template <class T>
void narrow(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace);

}  // namespace gemmule::cpu
