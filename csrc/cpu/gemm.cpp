#include "cpu/gemm.h"

#include <algorithm>

namespace gemmule::cpu {
namespace {

// `count` cut into `parts` of sizes that differ by one at most.
Index cut(Index count, Index parts, Index part) {
  return count / parts * part + std::min(part, count % parts);
}
Index pieces(Index count, Index largest) { return (count + largest - 1) / largest; }

// Packing an element costs about as much as 4 to 8 multiplications by it: where few rows of A share a column
// of B, both may stay as they lie. That depends on the whole product, never on a member's block of it.
inline constexpr Index few_rows = 256;

// A row by row is read through one line of each of its tile's rows at a time; strides of 2 KB would put more
// of them on one L1 set (4 KB apart, 8 ways) than it holds.
template <class T>
bool a_in_place(const Gemm<T>& call) {
  if (call.a.rows > few_rows && call.b.cols > few_rows) return false;
  if (call.a.row_stride == 1) return true;
  return call.a.col_stride == 1 && call.a.row_stride * static_cast<Index>(sizeof(T)) % 2048 != 0;
}

// B in place takes a page a step once its rows are that far apart: 256 x 2048 x 2048 fell from 85 to 72 % of
// the ceiling.
template <class T>
bool b_in_place(const Gemm<T>& call) {
  return call.b.col_stride == 1 && call.a.rows <= few_rows &&
         call.b.row_stride * static_cast<Index>(sizeof(T)) <= 4096;
}

// Z = X W^T for a small batch: computed as Z^T = W X^T, so that W, the larger operand, is read as it lies and
// X is the one that is packed; Z^T then turns over in L2. At 64 x 256 x 784 it saves a tenth. A few rows
// would leave lanes idle, and many make packing W cheap beside the product.
inline constexpr Index most_turned_rows = 128;

template <class T>
bool turns_over(const GemmKernels<T>& k, const Gemm<T>& call) {
  const Index m = call.a.rows, n = call.b.cols;
  return call.b.row_stride == 1 && call.b.col_stride != 1 && call.beta == T(0) && m >= k.lanes &&
         m <= most_turned_rows && 4 * m >= 3 * round_up(m, k.lanes) && n >= 2 * m;
}

template <class T>
Gemm<T> turned_over(const GemmKernels<T>& k, const Gemm<T>& call, T* product) {
  Gemm<T> turned;
  turned.a = call.b.transposed();
  turned.b = call.a.transposed();
  turned.c = product;
  turned.c_row = round_up(call.a.rows, k.lanes);
  turned.alpha = call.alpha;
  return turned;
}

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
      : kernels_(kernels), k_(kernels.gemm), call_(call), block_(block) {
    panel_ = k_.vectors * k_.lanes;
    depth_ = call.a.cols;
    strip_ = workspace;
    packed_ = workspace + strip_size(k_, depth_);
    a_in_place_ = a_in_place(call);
    b_in_place_ = b_in_place(call);
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
    // In place, only a last panel that ends inside a vector needs a copy.
    const Index whole = cols.size() / k_.lanes * k_.lanes;
    const Index first = !b_in_place_ ? 0 : whole == cols.size() ? cols.size() : whole / panel_ * panel_;
    k_.pack_b(depth.size(), cols.size() - first, panel_,
              call_.b.data + depth.begin * call_.b.row_stride + (cols.begin + first) * call_.b.col_stride,
              call_.b.row_stride, call_.b.col_stride, packed_ + first * depth.size());
  }

  void multiply(Span cols, Span depth, bool first, bool last) {
    pack_columns(cols, depth);
    TileArgs<T> tile;
    tile.depth = depth.size();
    tile.c_row = call_.c_row;
    tile.alpha = call_.alpha;
    tile.beta = first ? call_.beta : T(1);
    tile.act = last ? act_in_registers(call_) : Act::identity;
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
      if (last) finish_rows(kernels_, call_, {i0, i0 + height}, cols);
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

  const Kernels<T>& kernels_;
  const GemmKernels<T>& k_;
  const Gemm<T>& call_;
  const Block block_;
  Index panel_, depth_;
  bool a_in_place_, b_in_place_;
  T* strip_;
  T* packed_;
};

// A member's columns of C, as rows of the transpose.
template <class T>
void gemm_turned_over(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace) {
  const GemmKernels<T>& k = kernels.gemm;
  const Span cols = team.share(call.b.cols, k.lanes);
  const Index m = call.a.rows, t_row = round_up(m, k.lanes);
  if (cols.size() <= 0) return;
  T* product = workspace;
  T* rest = workspace + round_up(call.b.cols, k.lanes) * t_row;
  const Gemm<T> turned = turned_over(k, call, product);
  BlockGemm<T>(kernels, turned, {cols, {0, m}}, rest).run();
  const T* bias = call.bias ? call.bias + cols.begin : nullptr;
  k.transpose_out(m, cols.size(), product + cols.begin * t_row, t_row, call.c + cols.begin, call.c_row, bias,
                  act_in_registers(call), call.slope);
  finish_rows(kernels, call, {0, m}, cols);
}

}  // namespace

template <class T>
Index gemm_workspace(const Kernels<T>& kernels, const Gemm<T>& call) {
  const GemmKernels<T>& g = kernels.gemm;
  const Index m = call.a.rows, n = call.b.cols, k = call.a.cols;
  const Index strip = BlockGemm<T>::strip_size(g, k);
  const Index as_it_is = BlockGemm<T>::packed_size(g, n, k);
  const Index turning = std::min(m, most_turned_rows);
  const Index turned = BlockGemm<T>::packed_size(g, turning, k) +
                       checked_mul(round_up(n, g.lanes), round_up(turning, g.lanes));
  return checked_mul(strip + std::max(as_it_is, turned), static_cast<Index>(sizeof(T)));
}

template <class T>
const char* gemm_path(const Kernels<T>& kernels, const Gemm<T>& call) {
  if (turns_over(kernels.gemm, call)) return "turned over";
  const bool a = a_in_place(call), b = b_in_place(call);
  return a && b ? "in place" : a ? "a in place" : b ? "b in place" : "packed";
}

template <class T>
void gemm(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, void* workspace) {
  T* memory = static_cast<T*>(workspace);
  if (turns_over(kernels.gemm, call)) return gemm_turned_over(kernels, team, call, memory);
  const Block block = block_of(team, call.a.rows, call.b.cols, kernels.gemm.lanes);
  BlockGemm<T>(kernels, call, block, memory).run();
}

#define GEMMULE_INSTANTIATE(T)                                          \
  template Index gemm_workspace<T>(const Kernels<T>&, const Gemm<T>&);  \
  template const char* gemm_path<T>(const Kernels<T>&, const Gemm<T>&); \
  template void gemm<T>(const Kernels<T>&, const Team&, const Gemm<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
