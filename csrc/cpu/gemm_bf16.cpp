#include "cpu/gemm_bf16.h"

#include <algorithm>

#include "cpu/gemm_parts.h"

namespace gemmule::cpu {
namespace {

// Packing rounds, so both operands are always packed, each element as seldom as can be: at twice the speed of
// an FMA it counts twice. Loops over the depth (pc), the rows of A packed at once (ic), the columns of B
// packed at once (jc), row tiles (ir) and column panels (jr). A's packed rows stream from L2 or L3 one strip
// at a time, which then stays in L1; B's packed columns stream from L2.
class Bf16Gemm {
 public:
  Bf16Gemm(const Kernels<float>& kernels, const Gemm<float>& call, const Block& block, float* workspace)
      : kernels_(kernels),
        k_(kernels.bf16),
        call_(call),
        block_(block),
        panel_(k_.vectors * k_.lanes),
        deep_(is_deep(k_, call.a.rows)),
        rows_of_a_(workspace),
        columns_of_b_(workspace + size_of_a(k_, call.a.rows, call.a.cols)) {}

  // Packed elements, each as large as a float.
  static Index size_of_a(const Bf16Kernels& k, Index m, Index depth) {
    return round_up(std::min(m, k.row_block) * deepest(k, m, depth) + k.lanes, k.lanes);
  }
  static Index size_of_b(const Bf16Kernels& k, Index m, Index n, Index depth) {
    const Index columns = std::min(round_up(n, k.vectors * k.lanes), most_columns(k, is_deep(k, m)));
    return columns * deepest(k, m, depth) + k.lanes;
  }

  void run() {
    if (block_.rows.size() <= 0 || block_.cols.size() <= 0) return;
    const Index steps = pieces(call_.a.cols, k_.terms);
    const Index depths = std::max<Index>(1, pieces(steps, deepest(k_, call_.a.rows, call_.a.cols)));
    tiles_ = pieces(block_.rows.size(), k_.rows);
    const Index row_blocks = pieces(tiles_, k_.row_block / k_.rows);
    for (Index pc = 0; pc < depths; ++pc) {
      const Span depth{std::min(cut(steps, depths, pc) * k_.terms, call_.a.cols),
                       std::min(cut(steps, depths, pc + 1) * k_.terms, call_.a.cols)};
      for (Index ic = 0; ic < row_blocks; ++ic)
        multiply({cut(tiles_, row_blocks, ic), cut(tiles_, row_blocks, ic + 1)}, depth, pc == 0,
                 pc + 1 == depths);
    }
  }

 private:
  // Blocks are deep where many rows read them. B is rounded again for each product: of 256 rows by 2048 x
  // 2048 on two threads, packing it to L3 took 78 % of twice the ceiling to 74 (Zen 4).
  static bool is_deep(const Bf16Kernels& k, Index m) { return m > 512 && k.deep_chains > 1; }
  static Index most_columns(const Bf16Kernels& k, bool deep) {
    const Index panel = k.vectors * k.lanes;
    return (deep ? k.deep_columns : k.column_block) / panel * panel;
  }
  static Index deepest(const Bf16Kernels& k, Index m, Index depth) {
    const Index most = is_deep(k, m) ? k.deep_chains * k.depth_block : k.depth_block;
    return std::clamp<Index>(pieces(depth, k.terms), 1, most);
  }
  Index row_of(Index tile) const { return block_.rows.begin + cut(block_.rows.size(), tiles_, tile); }

  void multiply(Span tiles, Span depth, bool first, bool last) {
    const MatrixView<const float>& a = call_.a;
    const Index steps = pieces(depth.size(), k_.terms), top = row_of(tiles.begin);
    for (Index t = tiles.begin; t < tiles.end; ++t)
      k_.pack_a(row_of(t + 1) - row_of(t), depth.size(),
                a.data + row_of(t) * a.row_stride + depth.begin * a.col_stride, a.row_stride, a.col_stride,
                rows_of_a_ + (row_of(t) - top) * steps);
    TileArgs<float> tile;
    tile.depth = tile.a_run = tile.a_chunk = steps;
    tile.chains = std::max<Index>(1, pieces(steps, k_.depth_block));
    tile.a_jump = 0;
    tile.alpha = call_.alpha;
    tile.beta = first ? call_.beta : 1.0f;
    tile.act = last ? act_in_registers(call_) : Act::identity;
    tile.slope = call_.slope;
    tile.c_row = call_.c_row;
    const Index panels = pieces(block_.cols.size(), panel_);
    const Index column_blocks = pieces(panels, most_columns(k_, deep_) / panel_);
    for (Index jc = 0; jc < column_blocks; ++jc) {
      const Index j0 = block_.cols.begin + cut(panels, column_blocks, jc) * panel_;
      const Index j1 =
          std::min(block_.cols.begin + cut(panels, column_blocks, jc + 1) * panel_, block_.cols.end);
      const Index width = std::min(panel_, round_up(j1 - j0, k_.lanes));
      const MatrixView<const float>& b = call_.b;
      k_.pack_b(depth.size(), j1 - j0, width, b.data + depth.begin * b.row_stride + j0 * b.col_stride,
                b.row_stride, b.col_stride, columns_of_b_);
      for (Index t = tiles.begin; t < tiles.end; ++t) {
        const Index i = row_of(t), height = row_of(t + 1) - i;
        tile.a = rows_of_a_ + (i - top) * steps;
        tile.a_row = 1;
        tile.a_step = height;
        tile.b_step = width;
        for (Index j = j0; j < j1; j += width) {
          tile.cols = std::min(width, j1 - j);
          tile.b = columns_of_b_ + (j - j0) * steps;
          tile.c = call_.c + i * call_.c_row + j;
          tile.bias = last && call_.bias ? call_.bias + j : nullptr;
          (tile.chains > 1 ? k_.kernel_of_chains
                           : k_.kernel)[height - 1][pieces(tile.cols, k_.lanes) - 1](tile);
        }
        if (last) finish_rows(kernels_, call_, {i, i + height}, {j0, j1});
      }
    }
  }

  const Kernels<float>& kernels_;
  const Bf16Kernels& k_;
  const Gemm<float>& call_;
  const Block block_;
  const Index panel_;
  const bool deep_;
  Index tiles_ = 0;
  float* rows_of_a_;
  float* columns_of_b_;
};

}  // namespace

Index gemm_bf16_workspace(const Kernels<float>& kernels, const Gemm<float>& call) {
  const Bf16Kernels& k = kernels.bf16;
  const Index elements = Bf16Gemm::size_of_a(k, call.a.rows, call.a.cols) +
                         Bf16Gemm::size_of_b(k, call.a.rows, call.b.cols, call.a.cols);
  return checked_mul(elements, static_cast<Index>(sizeof(float)));
}

const char* gemm_bf16_path(const Bf16Kernels& kernels) {
  return kernels.terms == 2 ? "bf16 pairs" : "rounded to bf16";
}

void gemm_bf16(const Kernels<float>& kernels, const Team& team, const Gemm<float>& call, float* workspace) {
  Bf16Gemm(kernels, call, block_of(team, call, kernels.bf16.lanes), workspace).run();
}

}  // namespace gemmule::cpu
