// What the drivers of products share: cutting C into blocks and tiles, and the end of an epilogue.
#pragma once
#include <algorithm>
#include <cstdint>

#include "cpu/gemm.h"

namespace gemmule::cpu {

// `count` cut into `parts` of sizes that differ by one at most.
inline Index cut(Index count, Index parts, Index part) {
  return count / parts * part + std::min(part, count % parts);
}
inline Index pieces(Index count, Index largest) { return (count + largest - 1) / largest; }

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
  const Index n = call.b.cols;
  const bool whole = cols.size() == n && call.c_row == n;  // rows one behind the other
  const Index count = (whole ? rows.size() : 1) * cols.size();
  for (Index i = rows.begin; i < rows.end; i += whole ? rows.size() : 1) {
    T* row = call.c + i * call.c_row + cols.begin;
    if (call.saved)
      kernels.element.activation_grad(call.act, call.slope, count, row, call.saved + i * n + cols.begin, row);
    else
      kernels.element.activation(call.act, call.slope, count, row, row);
  }
}

// ---- cutting C for a team ----

// How far into a line of the cache its rows begin, in elements: 0 where they begin with lines, -1 where each
// begins elsewhere. NumPy's begin 16 bytes into one.
template <class T>
Index offset_in_line(const Gemm<T>& call) {
  if (call.c_row % in_a_line<T> != 0) return -1;
  return static_cast<Index>(reinterpret_cast<std::uintptr_t>(call.c) / sizeof(T)) % in_a_line<T>;
}

struct Block {
  Span rows, cols;
};

// Members form a grid over C, cut at multiples of `grain` columns: the grid whose largest block is smallest,
// and among those the one that costs least besides. Every member packs the rows of A and the columns of B it
// needs; sharing them would take barriers. And a line of C that two members write changes cores: 40 ns or
// more, in which 100 elements are packed. Where such lines are avoided 128 x 10 x 128 takes 0.65 of the time
// on two threads, 512 x 32 x 512 0.67, 128 x 128 x 128 0.91 (Zen 4). Kept panels are one member's each.
template <class T>
Block block_of(const Team& team, const Gemm<T>& call, Index grain) {
  const Index m = call.a.rows, n = call.b.cols, depth = call.a.cols;
  const bool panels = call.b_form == Form::panels || call.c_form == Form::panels;
  const double shared_line = offset_in_line(call) == 0 ? 0 : 100;
  int best_high = 1;
  double best_work = -1, best_cost = 0;
  for (int high = 1; high <= team.size(); ++high) {
    if (team.size() % high) continue;
    const int wide = team.size() / high;
    const Index rows = pieces(m, high), cols = pieces(pieces(n, grain), wide) * grain;
    const double work = double(rows) * double(cols);
    const double packing = double(rows + cols) * double(depth), shared = double(wide - 1) * double(m);
    const double cost = panels ? high : packing + shared_line * shared;
    if (best_work < 0 || work < best_work || (work == best_work && cost < best_cost)) {
      best_work = work, best_cost = cost, best_high = high;
    }
  }
  const int wide = team.size() / best_high;
  const Team row_team(team.rank() / wide, best_high, nullptr), col_team(team.rank() % wide, wide, nullptr);
  return {row_team.share(m), col_team.share(n, grain)};
}

}  // namespace gemmule::cpu
