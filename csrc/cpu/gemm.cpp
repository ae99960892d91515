#include "cpu/gemm.h"

#include <algorithm>

namespace gemmule::cpu {
namespace {

// `count` cut into `parts` of sizes that differ by one at most.
Index cut(Index count, Index parts, Index part) {
  return count / parts * part + std::min(part, count % parts);
}
Index pieces(Index count, Index largest) { return (count + largest - 1) / largest; }

// Members form a grid over C: the grid whose largest block is smallest, and among those the one that packs
// least (every member packs the rows of A and the columns of B it needs; sharing them would take barriers).
struct Block {
  Span rows, cols;
};

Block block_of(const Team& team, Index m, Index n, Index lanes) {
  int best_high = 1;
  double best_work = -1, best_edge = 0;
  for (int high = 1; high <= team.size(); ++high) {
    if (team.size() % high) continue;
    const int wide = team.size() / high;
    const Index rows = pieces(m, high), cols = pieces(pieces(n, lanes), wide) * lanes;
    const double work = double(rows) * double(cols), edge = double(rows) + double(cols);
    if (best_work < 0 || work < best_work || (work == best_work && edge < best_edge)) {
      best_work = work, best_edge = edge, best_high = high;
    }
  }
  const int wide = team.size() / best_high;
  const Team row_team(team.rank() / wide, best_high, nullptr), col_team(team.rank() % wide, wide, nullptr);
  return {row_team.share(m), col_team.share(n, lanes)};
}

// The serial five loops on one block: columns of B that fit L2 (jc), depth (pc), row tiles (ic), column
// panels (jr); the micro-kernel is the fifth. B's block is packed once and streams from L2; a row tile's
// strip of A is packed where it is used, and stays in L1.
template <class T>
class BlockGemm {
 public:
  BlockGemm(const Kernels<T>& kernels, const Gemm<T>& call, const Block& block, T* workspace)
      : k_(kernels.gemm), element_(kernels.element), call_(call), block_(block) {
    panel_ = k_.vectors * k_.lanes;
    depth_ = call.a.cols;
    strip_ = workspace;
    packed_ = workspace + strip_size(k_, depth_);
    // Packing an element costs about as much as 4 to 8 multiplications by it: what is used by few tiles stays
    // in place, as long as its rows do not fall on the same cache sets.
    const auto far_apart = [](Index stride) { return stride * static_cast<Index>(sizeof(T)) % 1024 != 0; };
    const bool few_columns = block.cols.size() <= 4 * panel_, few_rows = block.rows.size() <= 256;
    a_in_place_ = (call.a.row_stride == 1 || (call.a.col_stride == 1 && far_apart(call.a.row_stride))) &&
                  (few_columns || few_rows);
    b_in_place_ = call.b.col_stride == 1 && far_apart(call.b.row_stride) && few_rows;
  }

  static Index strip_size(const GemmKernels<T>& k, Index depth) {
    return round_up(k.rows * std::min(depth, k.depth_block) + k.lanes, alignment_of(k));
  }
  static Index packed_size(const GemmKernels<T>& k, Index n, Index depth) {
    const Index cols = std::min(round_up(n, k.lanes), k.column_block);
    return round_up(round_up(cols, k.lanes) * std::min(depth, k.depth_block) + k.lanes, alignment_of(k));
  }

  void run() {
    if (block_.rows.size() <= 0 || block_.cols.size() <= 0) return;
    const Index depths = std::max<Index>(1, pieces(depth_, k_.depth_block));
    const Index column_blocks = pieces(block_.cols.size(), k_.column_block / panel_ * panel_);
    const Index vectors = pieces(block_.cols.size(), k_.lanes);
    for (Index jc = 0; jc < column_blocks; ++jc) {
      const Index j0 = block_.cols.begin + cut(vectors, column_blocks, jc) * k_.lanes;
      const Index j1 =
          std::min(block_.cols.begin + cut(vectors, column_blocks, jc + 1) * k_.lanes, block_.cols.end);
      for (Index pc = 0; pc < depths; ++pc)
        multiply({j0, j1}, {cut(depth_, depths, pc), cut(depth_, depths, pc + 1)}, pc == 0, pc + 1 == depths);
    }
  }

 private:
  static Index alignment_of(const GemmKernels<T>&) { return 64 / static_cast<Index>(sizeof(T)); }

  void pack_columns(Span cols, Span depth) {
    for (Index j = 0; j < cols.size(); j += panel_) {
      const Index width = std::min(cols.size() - j, panel_);
      if (b_in_place_ && width % k_.lanes == 0) continue;
      k_.pack_b(depth.size(), width, round_up(width, k_.lanes),
                call_.b.data + depth.begin * call_.b.row_stride + (cols.begin + j) * call_.b.col_stride,
                call_.b.row_stride, call_.b.col_stride, packed_ + j * depth.size());
    }
  }

  void multiply(Span cols, Span depth, bool first, bool last) {
    pack_columns(cols, depth);
    TileArgs<T> tile;
    tile.depth = depth.size();
    tile.c_row = call_.c_row;
    tile.alpha = call_.alpha;
    tile.beta = first ? call_.beta : T(1);
    const bool in_registers = call_.act == Act::relu || call_.act == Act::leaky_relu;
    tile.act = last && in_registers ? call_.act : Act::identity;
    tile.slope = call_.slope;
    const Index tiles = pieces(block_.rows.size(), k_.rows);
    for (Index t = 0; t < tiles; ++t) {
      const Index i0 = block_.rows.begin + cut(block_.rows.size(), tiles, t);
      const Index height = block_.rows.begin + cut(block_.rows.size(), tiles, t + 1) - i0;
      const TileKernel<T>* kernel = place_rows(tile, i0, height, depth);
      for (Index j = 0; j < cols.size(); j += panel_) {
        tile.cols = std::min(cols.size() - j, panel_);
        const Index vectors = pieces(tile.cols, k_.lanes);
        place_columns(tile, cols, depth, j);
        tile.c = call_.c + i0 * call_.c_row + cols.begin + j;
        tile.bias = last && call_.bias ? call_.bias + cols.begin + j : nullptr;
        kernel[vectors - 1](tile);
      }
      if (last && !in_registers && call_.act != Act::identity)
        for (Index i = i0; i < i0 + height; ++i) {
          T* row = call_.c + i * call_.c_row + cols.begin;
          element_.activation(call_.act, call_.slope, cols.size(), row, row);
        }
    }
  }

  // Rows [i0, i0 + height) of A, where the kernel can read them: in place, or packed into the strip.
  const TileKernel<T>* place_rows(TileArgs<T>& tile, Index i0, Index height, Span depth) {
    const MatrixView<const T>& a = call_.a;
    tile.a = a.data + i0 * a.row_stride + depth.begin * a.col_stride;
    tile.a_row = a.row_stride;
    tile.a_step = a.col_stride;
    if (a_in_place_) return (a.row_stride == 1 ? k_.kernel : k_.kernel_rows)[height - 1];
    k_.pack_a(height, depth.size(), tile.a, a.row_stride, a.col_stride, strip_);
    tile.a = strip_;
    tile.a_row = 1;
    tile.a_step = height;
    return k_.kernel[height - 1];
  }

  // Panel j of the block of B: in place where its rows are adjacent vectors, otherwise packed.
  void place_columns(TileArgs<T>& tile, Span cols, Span depth, Index j) {
    const Index vectors = pieces(tile.cols, k_.lanes);
    if (b_in_place_ && tile.cols == vectors * k_.lanes) {
      tile.b = call_.b.data + depth.begin * call_.b.row_stride + cols.begin + j;
      tile.b_step = call_.b.row_stride;
    } else {
      tile.b = packed_ + j * depth.size();
      tile.b_step = vectors * k_.lanes;
    }
  }

  const GemmKernels<T>& k_;
  const ElementKernels<T>& element_;
  const Gemm<T>& call_;
  const Block block_;
  Index panel_, depth_;
  bool a_in_place_, b_in_place_;
  T* strip_;
  T* packed_;
};

}  // namespace

template <class T>
Index gemm_workspace(const Kernels<T>& kernels, Index, Index n, Index k) {
  const auto& g = kernels.gemm;
  return checked_mul(BlockGemm<T>::strip_size(g, k) + BlockGemm<T>::packed_size(g, n, k),
                     static_cast<Index>(sizeof(T)));
}

template <class T>
void gemm(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, void* workspace) {
  const Block block = block_of(team, call.a.rows, call.b.cols, kernels.gemm.lanes);
  BlockGemm<T>(kernels, call, block, static_cast<T*>(workspace)).run();
}

template Index gemm_workspace<float>(const Kernels<float>&, Index, Index, Index);
template Index gemm_workspace<double>(const Kernels<double>&, Index, Index, Index);
template void gemm<float>(const Kernels<float>&, const Team&, const Gemm<float>&, void*);
template void gemm<double>(const Kernels<double>&, const Team&, const Gemm<double>&, void*);

}  // namespace gemmule::cpu
