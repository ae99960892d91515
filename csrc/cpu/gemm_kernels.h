// The kernels of products as one instruction set offers them; part of its table, cpu/kernels.h. Plain data
// only, for the reason given there.
#pragma once
#include "core/lines.h"

namespace gemmule::cpu {

// One register tile of C = epilogue(alpha op(A) op(B) + beta C).
//
// The micro-kernel accumulates acc[i][j] = sum over p < depth of A(i, p) B(p, j) in registers, p ascending,
// then writes `cols` columns of each row of C:
//   C(i, j) = act(alpha acc[i][j] + beta C(i, j) + bias[j])
// beta = 0 never reads C, which may then hold NaN. Nothing right of `cols` is written. The depth may be cut
// into several `chains`, as evenly as can be, the longer ones first: each is a sum from 0, to which the ones
// before are added as C is to the first. That is as if they were tiles of their own, each on the C of the
// last.
//
// `a` has element (i, p) at a[i * a_row + p * a_step]; `b` has row p at b + p * b_step, `vectors * lanes`
// long and readable to its full length (packed panels are padded with zeros). A may lie in runs, as in panels
// of its own or in an image: after its first a_run steps, and after every a_chunk from there, it goes on
// a_jump further, and B b_jump. A listed A is a table of the addresses of its rows: element (i, p) is at
// a_list[i][a_first + p]. More tiles may follow below the first, of the same height and with the same B:
// their A is a_next, or `height` rows of the list, further. A listed A may have a listed C: row i begins at
// c_list[i][c_first] then, and c is not read. `act` is identity, relu or leaky_relu: those cost one
// instruction in registers. The others are applied by the driver to the tile's rows while they are in L1.
template <class T>
struct TileArgs {
  Index depth, chains = 1;
  const T* a;
  Index a_row, a_step;
  Index a_run, a_chunk, a_jump;
  const T* const* a_list;
  Index a_first;
  Index tiles = 1, a_next = 0;
  const T* b;
  Index b_step;
  Index b_next = 0;  // of a tile of two panels: how far from b the second begins
  Index b_jump = 0;
  T* b_kept = nullptr;  // see kernel_keeping
  const T* b_soon = nullptr;
  T* c;
  Index c_row;
  T* const* c_list = nullptr;
  Index c_first = 0;
  Index cols;
  T alpha, beta;
  const T* bias;  // nullptr, or `cols` long
  Act act;
  T slope;
  const T* fetch = nullptr;  // lines as many as C's, brought into cache while the sums are made
  Index fetch_row = 0;
};

template <class T>
using TileKernel = void (*)(const TileArgs<T>&);

// Strips of A that lie one behind the other, `apart` elements: strip s has A(s height + i, p) at
// dst[s apart + p height + i]. Column p lies in one piece, from list[p][first] on, or without a list from
// a[p step] on.
template <class T>
struct StripsArgs {
  Index height, count, apart;
  Index depth;
  const T* const* list;
  Index first;
  const T* a;
  Index step;
  T* dst;
};

inline constexpr int max_tile_rows = 14;
inline constexpr int max_tile_vectors = 4;

template <class T>
struct GemmKernels {
  int rows, vectors, lanes;  // the largest tile: rows x (vectors * lanes)
  Index depth_block;         // KC: depth of a packed panel, at most 384
  Index column_block;        // NC: columns of B packed at once
  Index deep_chains;         // the most chains of a deep block (cpu/block_sizes.h), each at most depth_block
  Index deep_columns;        // its columns of B
  bool two_panels;           // see kernel_rows
  // kernel[h - 1][v - 1] computes h rows by v vectors, for h <= rows, v <= vectors; A has a_row == 1.
  TileKernel<T> kernel[max_tile_rows][max_tile_vectors];
  // The same in several chains, for an A in packed strips and a B in packed panels.
  TileKernel<T> kernel_of_chains[max_tile_rows][max_tile_vectors];
  // As `kernel`, for an A that lies as the caller keeps it, a_step == 1. Where `two_panels`, [h - 1][2
  // vectors - 1] makes two of B's panels at once, both whole.
  TileKernel<T> kernel_rows[max_tile_rows][max_tile_vectors];
  // The same for listed rows.
  TileKernel<T> kernel_listed_rows[max_tile_rows][max_tile_vectors];
  // `vectors` wide, for an A in packed strips and a B whose rows are apart: the first tile packs it at
  // b_kept, and those below read it there. They fetch b_soon, as deep and as wide and its rows as far apart.
  TileKernel<T> kernel_keeping[max_tile_rows];
  // dst[p * height + i] = A(i, p); A(i, p) at a[i * row + p * step]. May write lanes - 1 elements more.
  void (*pack_a)(Index height, Index depth, const T* a, Index row, Index step, T* dst);
  void (*pack_strips)(const StripsArgs<T>&);
  // B(p, j), at b[p * row + j * step], in panels of `width` columns, whole vectors, one after the other, the
  // last padded with zeros: (p, j) at dst[j / width * width * depth + p * width + j % width].
  void (*pack_b)(Index depth, Index cols, Index width, const T* b, Index row, Index step, T* dst);
  // C(i, j) = act(t[j * t_row + i] + bias[j]) for i < rows, j < cols; rows of t are readable up to a multiple
  // of lanes. `act` as for a tile.
  void (*transpose_out)(Index rows, Index cols, const T* t, Index t_row, T* c, Index c_row, const T* bias,
                        Act act, T slope);
};

// Products of float32 matrices whose operands are rounded to bfloat16, to nearest even, while they are
// packed: NaN stays NaN, and a magnitude below 2^-126 becomes 0. The sums are float32. A packed step holds
// `terms` terms of the depth in the 4 bytes of a float: a pair of bfloat16 where an instruction multiplies
// pairs, the rounded float elsewhere. A depth that ends inside a step is filled up with zeros.
struct Bf16Kernels {
  int rows, vectors, lanes;  // the largest tile
  Index terms;               // 1 or 2
  Index depth_block;         // steps of a packed panel
  Index row_block;           // rows of A packed at once
  Index column_block;        // columns of B packed at once
  Index deep_chains;         // as in GemmKernels
  Index deep_columns;
  // As in GemmKernels, a_row == 1; `depth` counts steps, a and b are packed.
  TileKernel<float> kernel[max_tile_rows][max_tile_vectors];
  TileKernel<float> kernel_of_chains[max_tile_rows][max_tile_vectors];
  // dst[s * height + i] = step s of row i; `depth` counts terms.
  void (*pack_a)(Index height, Index depth, const float* a, Index row, Index step, float* dst);
  // Step s of column j at dst[j / width * width * steps + s * width + j % width]; otherwise as in
  // GemmKernels.
  void (*pack_b)(Index depth, Index cols, Index width, const float* b, Index row, Index step, float* dst);
};

// A tile of C = act(alpha A B + beta C + bias) whose operands both lie along the depth: A(i, p) at
// a[i * a_row + p], B(p, j) at b[j * b_row + p]. Nothing else of them is read, and of C only `rows` x `cols`
// are touched. Each accumulator lane takes every lanes-th term, at most 384 of them, and the lanes are added
// in the same order for every element; `act` as for a register tile.
template <class T>
struct DotArgs {
  Index depth;  // at most 384 * lanes
  const T* a;
  Index a_row;
  const T* b;
  Index b_row;
  T* c;
  Index c_row;
  Index rows, cols;
  T alpha, beta;
  const T* bias;  // nullptr, or `cols` long
  Act act;
  T slope;
};

template <class T>
using DotKernel = void (*)(const DotArgs<T>&);

inline constexpr int max_strip_rows = 12;
inline constexpr int max_dot_shapes = 5;
inline constexpr int max_narrow_vectors = 2;
inline constexpr int max_outer_depth = 4;

// Any number of rows of C, as the micro-kernel makes a tile's.
template <class T>
using RowsKernel = void (*)(const TileArgs<T>&, Index rows);

// For products with few rows, few columns or little depth. They pack nothing.
template <class T>
struct SkinnyKernels {
  int strip_rows;  // at most max_strip_rows
  int dots_size;   // a power of two
  // strip[h - 1] computes h rows of C, `cols` of any number; row p of B, b_step apart, is read to `cols` and
  // no further. A lies in one piece with any strides; depth is at most 384. With a `fetch` lines of C are
  // brought into cache before they are written.
  TileKernel<T> strip[max_strip_rows];
  // dots[s] computes up to 2^s rows by dots_size / 2^s columns.
  DotKernel<T> dots[max_dot_shapes];
  // narrow[v - 1] computes rows of v vectors, the last perhaps not full; a_step == 1. Rows that lie one
  // behind the other are written whole vector by whole vector, the next one's beginning for the time being
  // too.
  RowsKernel<T> narrow[max_narrow_vectors];
  // outer[k - 1] computes rows of any length in a depth of k, from end to end. With a `fetch` lines of C are
  // brought into cache before they are written.
  RowsKernel<T> outer[max_outer_depth];
};

}  // namespace gemmule::cpu
