// What a product packs, and what it reads where it lies.
#pragma once
#include <algorithm>

#include "cpu/gemm.h"

namespace gemmule::cpu {

// What is packed is dense; what stays where it lies saves a copy. That depends on the whole product, never on
// a member's block of it. Up to this many rows or columns A may stay.
inline constexpr Index few_rows = 256;

// How many lines, so far apart, stay in an L1 of 64 sets and 8 ways: those that are powers of two apart meet
// in few sets.
template <class T>
Index lines_in_l1(Index stride) {
  Index sets = 64, bytes = stride * static_cast<Index>(sizeof(T));
  if (bytes % 64 != 0) return sets * 8;
  for (bytes /= 64; sets > 1 && bytes % 2 == 0; bytes /= 2) sets /= 2;
  return sets * 8;
}

// A row by row is read through one line of each of its tile's rows at a time; strides of 2 KB would put more
// of them on one L1 set (4 KB apart, 8 ways) than it holds.
template <class T>
bool crowds_l1(Index row_stride) {
  return row_stride * static_cast<Index>(sizeof(T)) % 2048 == 0;
}

// A by columns is read through a line of each column, by every panel of B again. Columns of a line are as
// dense as packed ones, and from L2 they come in time where they are few or close by, or B is narrow: 64 x
// 64 x 256 takes 0.69 of the time of packed strips, 256 x 64 x 256 0.74, 512 x 128 x 256 0.91, 128 x 256 x
// 256 0.97, but 1024 x 1024 x 64 1.15 (Emerald Rapids).
template <class T>
bool columns_in_place(const Gemm<T>& call) {
  const Index column = call.a.col_stride * static_cast<Index>(sizeof(T)), n = call.b.cols;
  if (column <= 64 || n <= 16) return true;
  return (column <= 512 || (column <= 4096 && n <= 128)) && call.a.cols * column <= 256 * 1024;
}

template <class T>
bool a_in_place(const Gemm<T>& call) {
  if (call.a_form != Form::strided) return true;
  if (call.a.row_stride == 1) return columns_in_place(call);
  if (call.a.rows > few_rows && call.b.cols > few_rows) return false;
  return call.a.col_stride == 1 && !crowds_l1<T>(call.a.row_stride);
}

// A B of so few columns has too few panels to make good what packing them on the way costs (block_sizes.h):
// packed so 64 x 128 x 256 takes 1.02 of the time, 128 x 100 x 256 1.07 (Emerald Rapids).
inline constexpr Index narrow_b = 128;

// So is B row by row, by every strip again: 256 x 256 x 256 runs at 68 GFLOP/s in place, 87 packed, and
// 100 x 784 x 256 at 71 and 85. A small one is in L1 anyway, where its rows do not meet, and for few rows of
// A it comes from L2 in time. But not one with a page for every row: 24 x 4096 x 1024 1.26 (Emerald Rapids).
template <class T>
bool b_in_place(const Gemm<T>& call) {
  const MatrixView<const T>& b = call.b;
  const Index row_bytes = b.row_stride * static_cast<Index>(sizeof(T)), bytes = b.rows * row_bytes;
  if (b.col_stride != 1 || row_bytes >= 4096) return false;
  const bool in_l1 = bytes <= 64 * 1024 && lines_in_l1<T>(b.row_stride) >= std::min<Index>(b.rows, 256);
  return call.a.rows <= (in_l1 ? few_rows : b.cols <= narrow_b ? 64 : 24);
}

}  // namespace gemmule::cpu
