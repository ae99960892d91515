// What the drivers of products share: cutting C into blocks and tiles, and the end of an epilogue.
#pragma once
#include <algorithm>

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

// Members form a grid over C, cut at multiples of `grain` columns (`by_columns`: into as many as can be): the
// grid whose largest block is smallest, and among those the one that packs least (every member packs the rows
// of A and the columns of B it needs; sharing them would take barriers).
struct Block {
  Span rows, cols;
};

inline Block block_of(const Team& team, Index m, Index n, Index grain, bool by_columns) {
  int best_high = 1;
  double best_work = -1, best_edge = 0;
  for (int high = 1; high <= team.size(); ++high) {
    if (team.size() % high) continue;
    const int wide = team.size() / high;
    const Index rows = pieces(m, high), cols = pieces(pieces(n, grain), wide) * grain;
    const double work = double(rows) * double(cols), edge = by_columns ? high : double(rows) + double(cols);
    if (best_work < 0 || work < best_work || (work == best_work && edge < best_edge)) {
      best_work = work, best_edge = edge, best_high = high;
    }
  }
  const int wide = team.size() / best_high;
  const Team row_team(team.rank() / wide, best_high, nullptr), col_team(team.rank() % wide, wide, nullptr);
  return {row_team.share(m), col_team.share(n, grain)};
}

}  // namespace gemmule::cpu
