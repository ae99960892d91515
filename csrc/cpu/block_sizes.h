// How a product by blocks is cut, and what its workspace holds.
#pragma once
#include <algorithm>

#include "cpu/gemm_parts.h"
#include "cpu/in_place.h"

namespace gemmule::cpu {

// A stretch in so many pieces of sizes that differ by one, the larger ones first.
struct EvenCut {
  EvenCut(Span stretch, Index pieces) : first(stretch.begin), count(pieces) {
    if (count > 0) least = stretch.size() / count, larger = stretch.size() % count;
  }
  Index begin(Index i) const { return first + i * least + std::min(i, larger); }
  Index size(Index i) const { return least + (i < larger); }
  // How many from i on are of its size.
  Index alike(Index i) const { return (i < larger ? larger : count) - i; }

  Index first, count, least = 0, larger = 0;
};

// A row tile's strip of A in a block of so much depth: from a line on, as all pieces of the workspace.
template <class T>
Index strip_size(const GemmKernels<T>& k, Index depth) {
  return whole_lines<T>(k.rows * depth + k.lanes);
}

// ---- how it is made ----

// A block of B in L2, and a third more: what is read from end to end need not stay all.
template <class T>
Index block_in_l2(const GemmKernels<T>& k) {
  return k.column_block * k.depth_block * 4 / 3;
}

// Strips that are kept share L2 with a block of B.
template <class T>
Index most_strips(const GemmKernels<T>& k) {
  return k.column_block * k.depth_block * 2 / 3;
}

// Whether a wide B, row by row, is packed on the way, each of its panels by the first tile that meets it,
// while the strips of A wait in cache: 64 x 512 x 512 takes 0.85 of the time of packing before, 64 x 784 x
// 256 0.86, 64 x 1024 x 4096 0.70, 256 x 1024 x 1024 0.94. More rows go so by 256, and pack it again for
// each: 512 x 512 x 512 takes 0.98, on two threads 0.95, 1000 x 784 x 256 0.98 and 0.95; but 1024 x 1024 x
// 32 1.06, as C is written a line or two of a row at a time, 1024 x 1024 x 1024 1.04, 2048 x 2048 x 2048 1.12
// (Emerald Rapids).
template <class T>
bool packs_on_the_way(const GemmKernels<T>& k, const Gemm<T>& call) {
  const Index m = call.a.rows, depth = call.a.cols, n = call.b.cols;
  if (call.a_form != Form::strided || call.b_form != Form::strided || call.c_form != Form::strided)
    return false;
  if (call.listener || call.b.col_stride != 1 || n <= narrow_b || b_in_place(call)) return false;
  const bool again = m <= 1024 && depth >= 128 && depth * n <= block_in_l2<T>(k);
  return m <= few_rows || again;
}

// Tiles of rows that go past a panel then.
template <class T>
Index tiles_on_the_way(const GemmKernels<T>& k) {
  return pieces(few_rows, k.rows);
}

// Whether it is made panel by panel, each from end to end, with all strips of A: where those fit L2, or few
// rows are read in place.
template <class T>
bool by_panels(const GemmKernels<T>& k, const Gemm<T>& call) {
  if (packs_on_the_way(k, call)) return true;
  if (call.c_form == Form::panels) {
    const Index strips = checked_mul(pieces(call.a.rows, k.rows), strip_size(k, call.a.cols));
    return call.a.cols <= k.depth_block && strips <= most_strips(k);
  }
  return call.b_form == Form::panels && a_in_place(call) && call.a.rows <= few_rows &&
         act_in_registers(call) == call.act;
}

// What is packed at once: of B so many columns, and of both operands the depth of so many chains, sums of a
// tile that begin from 0.
struct BlockShape {
  Index chains, depth, columns;
};

template <class T>
BlockShape flat_block(const GemmKernels<T>& k, Index depth) {
  return {1, std::min(depth, k.depth_block), k.column_block};
}
template <class T>
BlockShape deep_block(const GemmKernels<T>& k, Index depth) {
  if (depth <= k.depth_block) return flat_block(k, depth);
  return {k.deep_chains, std::min(depth, k.deep_chains * k.depth_block), k.deep_columns};
}
// Deep ones are made of packed strips and panels.
template <class T>
BlockShape block_shape(const GemmKernels<T>& k, const Gemm<T>& call) {
  const bool a = call.c_form == Form::panels || !a_in_place(call);
  const bool b = call.b_form == Form::panels || !b_in_place(call);
  return a && b && !by_panels(k, call) ? deep_block(k, call.a.cols) : flat_block(k, call.a.cols);
}

// Whether the team packs for all: where packing is a small part of much work, A and B are both packed, and
// members on their own would pack much of them again. What another member packed comes from its cache: 256
// x 2048 x 2048 on two threads takes 0.90 to 0.94 of the time where each packs its own half of B (Emerald
// Rapids), 256 x 784 x 256 0.92, 512 x 784 x 256 0.96, 512 x 512 x 512 0.99, but 640 x 640 x 640 1.02, 1024 x
// 1024 x 1024 1.03 (Zen 4).
template <class T>
bool together(const Team& team, const Gemm<T>& call) {
  const double m = static_cast<double>(call.a.rows), n = static_cast<double>(call.b.cols),
               k = static_cast<double>(call.a.cols), again = (team.size() - 1) * std::min(m, n);
  return team.meets() && call.b_form == Form::strided && call.c_form == Form::strided && !b_in_place(call) &&
         m * n * k >= 2e8 && again > (m + n) / 4;
}

// Where B takes more than one block of columns, the strips of A wait for the next.
template <class T>
bool strips_wait(const BlockShape& block, const Gemm<T>& call) {
  return call.c_form != Form::panels && call.b.cols > block.columns && !a_in_place(call);
}

template <class T>
bool keeps_strips(const GemmKernels<T>& k, const Gemm<T>& call) {
  if (call.c_form == Form::panels) return by_panels(k, call);
  return packs_on_the_way(k, call) || strips_wait(block_shape(k, call), call);
}

// How many tiles a listener is told of at once. Strip by strip a few: every panel's wait for it, in L1 or
// L2. Panel by panel as many as leave half of a 32 KB L1 to A and B: a call costs as much as half a tile.
inline constexpr Index tiles_heard = 4;

template <class T>
Index tiles_heard_of(const GemmKernels<T>& k, Index panel) {
  return std::max<Index>(1, 16 * 1024 / (k.rows * panel * static_cast<Index>(sizeof(T))));
}

// ---- elements of the workspace ----

template <class T>
Index all_strips(const GemmKernels<T>& k, const BlockShape& block, Index rows) {
  return checked_mul(pieces(rows, k.rows), strip_size(k, block.depth));
}

// The most columns of a block of B, in whole panels.
template <class T>
Index block_columns(const GemmKernels<T>& k, const BlockShape& block, Index n) {
  return std::min(round_up(n, k.vectors * k.lanes), block.columns);
}

template <class T>
Index packed_size(const GemmKernels<T>& k, const BlockShape& block, Index n) {
  return whole_lines<T>(block_columns(k, block, n) * block.depth + k.lanes);
}

// The most of any of so many columns and so much depth or less.
template <class T>
Index packed_size(const GemmKernels<T>& k, Index depth, Index n) {
  const BlockShape deep = deep_block(k, depth);
  const Index flat = packed_size(k, flat_block(k, depth), n);
  return deep.chains == 1 ? flat : std::max(flat, packed_size(k, deep, n));
}

// The strips of this call.
template <class T>
Index strips_at_once(const GemmKernels<T>& k, const Gemm<T>& call) {
  const BlockShape block = block_shape(k, call);
  const Index strip = strip_size(k, block.depth), all = all_strips(k, block, call.a.rows);
  if (packs_on_the_way(k, call)) return std::min(all, tiles_on_the_way(k) * strip);
  return keeps_strips(k, call) ? all : checked_mul(tiles_heard, strip);
}

// The most of any with as many rows and as much depth or less, which may be made another way.
template <class T>
Index strips_size(const GemmKernels<T>& k, const Gemm<T>& call) {
  const BlockShape flat = flat_block(k, call.a.cols), deep = deep_block(k, call.a.cols);
  const Index strip = strip_size(k, flat.depth), all = all_strips(k, flat, call.a.rows);
  const Index by_panels = std::min(all, std::max(most_strips(k), tiles_on_the_way(k) * strip));
  const Index waiting = strips_wait(flat, call) ? all : 0;
  const Index most = std::max({checked_mul(tiles_heard, strip), by_panels, waiting});
  if (deep.chains == 1) return most;
  const Index deep_waiting = strips_wait(deep, call) ? all_strips(k, deep, call.a.rows) : 0;
  return std::max({most, checked_mul(tiles_heard, strip_size(k, deep.depth)), deep_waiting});
}

// Rows of C that a listener is told of and that are not kept: sums of one chain.
template <class T>
Index passing_columns(const GemmKernels<T>& k, Index n) {
  return block_columns(k, flat_block(k, 0), n);
}
template <class T>
Index passing_size(const GemmKernels<T>& k, Index n) {
  const Index panel = panel_width(k, n);
  return std::max(passing_columns(k, n) * tiles_heard, panel * tiles_heard_of(k, panel)) * k.rows;
}

}  // namespace gemmule::cpu
