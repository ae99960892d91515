#include "cpu/gemm.h"

#include <algorithm>
#include <type_traits>

#include "cpu/gemm_bf16.h"
#include "cpu/gemm_parts.h"
#include "cpu/skinny.h"

namespace gemmule::cpu {
namespace {

// Packing an element costs about as much as 4 to 8 multiplications by it: where few rows of A share a column
// of B, both may stay as they lie. That depends on the whole product, never on a member's block of it.
inline constexpr Index few_rows = 256;

// A row by row is read through one line of each of its tile's rows at a time; strides of 2 KB would put more
// of them on one L1 set (4 KB apart, 8 ways) than it holds.
template <class T>
bool crowds_l1(Index row_stride) {
  return row_stride * static_cast<Index>(sizeof(T)) % 2048 == 0;
}

template <class T>
bool a_in_place(const Gemm<T>& call) {
  if (call.a_form != Form::strided) return true;
  if (call.a.rows > few_rows && call.b.cols > few_rows) return false;
  if (call.a.row_stride == 1) return true;
  return call.a.col_stride == 1 && !crowds_l1<T>(call.a.row_stride);
}

// B in place takes a page a step once its rows are that far apart: 256 x 2048 x 2048 fell from 85 to 72 % of
// the ceiling, and rows of 4 KB meet in one set of L1: 64 x 4096 x 1024 took 8.3 ms and packed takes 6.3.
template <class T>
bool b_in_place(const Gemm<T>& call) {
  return call.b.col_stride == 1 && call.a.rows <= few_rows &&
         call.b.row_stride * static_cast<Index>(sizeof(T)) < 4096;
}

// Z = X W^T for a small batch: computed as Z^T = W X^T, so that W, the larger operand, is read as it lies and
// X is the one that is packed; Z^T then turns over in L2. At 64 x 256 x 784 it saves a tenth. A few rows
// would leave lanes idle, and many make packing W cheap beside the product.
inline constexpr Index most_turned_rows = 128;

template <class T>
bool turns_over(const GemmKernels<T>& k, const Gemm<T>& call) {
  if (call.b_form != Form::strided) return call.b_form == Form::panels_of_transpose;
  const Index m = call.a.rows, n = call.b.cols;
  return call.b.row_stride == 1 && call.b.col_stride != 1 && call.beta == T(0) && m >= k.lanes &&
         m <= most_turned_rows && 4 * m >= 3 * round_up(m, k.lanes) && n >= 2 * m;
}

template <class T>
Gemm<T> turned_over(const GemmKernels<T>& k, const Gemm<T>& call, T* product) {
  Gemm<T> turned;
  turned.a = call.b.transposed();
  turned.a_form = call.b_form == Form::panels_of_transpose ? Form::panels : Form::strided;
  turned.b = call.a.transposed();
  turned.c = product;
  turned.c_row = round_up(call.a.rows, k.lanes);
  turned.alpha = call.alpha;
  return turned;
}

// A C of this many bytes is not in L2 when its turn comes: 4096 x 4096 went from 86 to 90 % of the ceiling
// with its tiles prefetched, MNIST's step from 655 to 663 us.
inline constexpr Index result_beyond_cache = 1024 * 1024;

// The serial five loops on one block: columns of B that fit L2 (jc), depth (pc), row tiles (ic), column
// panels (jr); the micro-kernel is the fifth. B's block is packed once and streams from L2; a row tile's
// strip of A is packed where it is used, and stays in L1.
template <class T>
class BlockGemm {
 public:
  BlockGemm(const Kernels<T>& kernels, const Gemm<T>& call, const Block& block, T* workspace)
      : kernels_(kernels), k_(kernels.gemm), call_(call), block_(block) {
    depth_ = call.a.cols;
    // Panels that the caller keeps are cut from the first column of the matrix on, packed ones from the
    // block's.
    kept_panels_ = call.b_form == Form::panels || call.c_form == Form::panels;
    panel_ = kept_panels_ ? panel_width(k_, call.b.cols) : k_.vectors * k_.lanes;
    panel_vectors_ = pieces(panel_, k_.lanes);
    a_in_place_ = a_in_place(call);
    b_in_place_ = call.b_form == Form::strided && b_in_place(call);
    // Sums that are made in several depths wait in C for the next.
    keeps_ = !call.listener || call.listener->keep || depth_ > k_.depth_block;
    tiles_ = pieces(block.rows.size(), k_.rows);
    group_ = call.listener ? tiles_heard : 1;
    keeps_strips_ = keeps_strips(k_, call);
    prefetches_ =
        block.rows.size() * block.cols.size() * static_cast<Index>(sizeof(T)) >= result_beyond_cache;
    strips_ = workspace;
    packed_ = strips_ + strips_size(k_, call);
    passing_ = packed_ + packed_size(k_, call.b.cols, depth_);
  }

  static Index strip_size(const GemmKernels<T>& k, Index depth) {
    return round_up(k.rows * std::min(depth, k.depth_block) + k.lanes, alignment_of(k));
  }
  static Index passing_size(const GemmKernels<T>& k, Index n) {
    return std::min(round_up(n, k.vectors * k.lanes), k.column_block) * tiles_heard * k.rows;
  }
  // Where B takes more than one block of columns, the strips of A wait for the next.
  static bool keeps_strips(const GemmKernels<T>& k, const Gemm<T>& call) {
    return call.b.cols > k.column_block && !a_in_place(call);
  }
  static Index strips_size(const GemmKernels<T>& k, const Gemm<T>& call) {
    const Index strips = keeps_strips(k, call) ? pieces(call.a.rows, k.rows) : tiles_heard;
    return checked_mul(strips, strip_size(k, call.a.cols));
  }
  static Index packed_size(const GemmKernels<T>& k, Index n, Index depth) {
    const Index cols = std::min(round_up(n, k.vectors * k.lanes), k.column_block);
    return round_up(cols * std::min(depth, k.depth_block) + k.lanes, alignment_of(k));
  }

  void run() {
    if (block_.rows.size() <= 0 || block_.cols.size() <= 0) return;
    const Index depths = std::max<Index>(1, pieces(depth_, k_.depth_block));
    const Index column_blocks = pieces(block_.cols.size(), k_.column_block / panel_ * panel_);
    const Index grain = kept_panels_ ? panel_ : k_.lanes, grains = pieces(block_.cols.size(), grain);
    for (Index pc = 0; pc < depths; ++pc)
      for (Index jc = 0; jc < column_blocks; ++jc) {
        const Index j0 = block_.cols.begin + cut(grains, column_blocks, jc) * grain;
        const Index j1 =
            std::min(block_.cols.begin + cut(grains, column_blocks, jc + 1) * grain, block_.cols.end);
        first_columns_ = jc == 0;
        multiply({j0, j1}, {cut(depth_, depths, pc), cut(depth_, depths, pc + 1)}, pc == 0, pc + 1 == depths);
      }
  }

 private:
  // Four strips of rows, a few KB of each panel: few calls, and still in L1 or L2.
  static constexpr Index tiles_heard = 4;

  static Index alignment_of(const GemmKernels<T>&) { return 64 / static_cast<Index>(sizeof(T)); }

  void pack_columns(Span cols, Span depth) {
    if (call_.b_form == Form::panels) return;
    // In place, only a last panel that ends inside a vector needs a copy.
    const Index whole = cols.size() / k_.lanes * k_.lanes;
    first_packed_ = !b_in_place_ ? 0 : whole == cols.size() ? cols.size() : whole / panel_ * panel_;
    packed_width_ = panel_width(k_, cols.size() - first_packed_);
    k_.pack_b(
        depth.size(), cols.size() - first_packed_, packed_width_,
        call_.b.data + depth.begin * call_.b.row_stride + (cols.begin + first_packed_) * call_.b.col_stride,
        call_.b.row_stride, call_.b.col_stride, packed_);
  }

  // The columns of one panel within a block, and where the panel begins.
  struct Panel {
    Index start, begin, end;
  };
  Panel first_panel(Span cols) const {
    const Index start = kept_panels_ ? cols.begin / panel_ * panel_ : cols.begin;
    return {start, cols.begin, std::min(start + panel_, cols.end)};
  }
  Panel after(const Panel& p, Span cols) const {
    return {p.start + panel_, p.start + panel_, std::min(p.start + 2 * panel_, cols.end)};
  }

  // A tile's rows, and those of its arguments that stay from panel to panel. Divisions are done here, not at
  // every tile.
  struct Strip {
    TileArgs<T> tile;
    const TileKernel<T>* kernel;
    Span rows;
  };

  void multiply(Span cols, Span depth, bool first, bool last) {
    pack_columns(cols, depth);
    Strip strips[tiles_heard];
    for (Index t0 = 0; t0 < tiles_; t0 += group_) {
      const Index count = std::min(group_, tiles_ - t0);
      for (Index t = 0; t < count; ++t) strips[t] = strip(t0 + t, depth, first, last);
      const Span rows{strips[0].rows.begin, strips[count - 1].rows.end};
      Ahead ahead = lines_ahead(t0 + count, depth, pieces(cols.size(), panel_));
      for (Panel panel = first_panel(cols); panel.begin < cols.end; panel = after(panel, cols)) {
        ahead.fetch();
        const Index width = panel.end - panel.begin;
        const Index vectors = (width == panel_ ? panel_vectors_ : pieces(width, k_.lanes)) - 1;
        for (Index t = 0; t < count; ++t) {
          TileArgs<T>& tile = strips[t].tile;
          tile.cols = width;
          tile.bias = last && call_.bias ? call_.bias + panel.begin : nullptr;
          place_columns(tile, cols, depth, panel);
          place_result(tile, strips[t].rows.begin, panel, cols, rows.begin);
          if (prefetches_) prefetch_result(tile, strips[t].rows.size());
          strips[t].kernel[vectors](tile);
        }
      }
      if (!last) continue;
      finish_rows(kernels_, call_, rows, cols);
      if (call_.listener) tell(rows, cols);
    }
  }

  // What the next strip is made of, fetched into L2 a few lines at a time while the tiles of this one are
  // computed: a strip of 6 x 341 then packs in 1,500 ticks, and otherwise in 3,000 (Zen 3, products of 1024).
  struct Ahead {
    const T* at = nullptr;      // the next line
    Index lines = 0, left = 0;  // of a row; of this row, still to fetch
    Index back = 0;             // from behind the last line of a row to the first of the next
    Index rows = 0, share = 0;  // still to begin; lines at a time

    void fetch() {
      constexpr Index line = 64 / static_cast<Index>(sizeof(T));
      for (Index i = 0; i < share; ++i, at += line) {
        if (left == 0) {
          if (rows == 0) return;
          --rows, left = lines, at += back;
        }
        --left;
        __builtin_prefetch(at, 0, 2);
      }
    }
  };

  Ahead lines_ahead(Index t, Span depth, Index calls) const {
    constexpr Index line = 64 / static_cast<Index>(sizeof(T));
    Ahead ahead;
    if (a_in_place_ || t >= tiles_) return ahead;
    const MatrixView<const T>& a = call_.a;
    const Index height = row(t + 1) - row(t);
    if (!first_columns_ && keeps_strips_) {
      ahead.at = strip_of(t);
      ahead.rows = 1;
      ahead.lines = pieces(height * depth.size(), line);
    } else if (a.col_stride == 1) {
      ahead.at = a.data + row(t) * a.row_stride + depth.begin;
      ahead.rows = height;
      ahead.lines = pieces(depth.size(), line);
      ahead.back = a.row_stride - ahead.lines * line;
    } else {
      // The last element of each column; the first ones came with the strip before.
      ahead.at = a.data + (row(t + 1) - 1) * a.row_stride + depth.begin * a.col_stride;
      ahead.rows = depth.size();
      ahead.lines = 1;
      ahead.back = a.col_stride - line;
    }
    ahead.share = pieces(ahead.lines * ahead.rows, calls);
    ahead.at -= ahead.back;
    return ahead;
  }

  Strip strip(Index t, Span depth, bool first, bool last) const {
    Strip strip;
    strip.rows = {row(t), row(t + 1)};
    if (!a_in_place_ && (first_columns_ || !keeps_strips_)) pack_rows(strip.rows, t, depth);
    TileArgs<T>& tile = strip.tile;
    tile.depth = depth.size();
    tile.alpha = call_.alpha;
    tile.beta = first ? call_.beta : T(1);
    tile.act = last ? act_in_registers(call_) : Act::identity;
    tile.slope = call_.slope;
    tile.c_row = call_.c_form == Form::panels ? panel_ : call_.c_row;
    strip.kernel = place_rows(tile, strip.rows, t, depth);
    return strip;
  }

  // Row tiles: the block's rows in heights that differ by one at most.
  Index row(Index t) const { return block_.rows.begin + cut(block_.rows.size(), tiles_, t); }

  T* strip_of(Index t) const { return strips_ + (keeps_strips_ ? t : t % group_) * strip_size(k_, depth_); }

  void pack_rows(Span rows, Index t, Span depth) const {
    const MatrixView<const T>& a = call_.a;
    k_.pack_a(rows.size(), depth.size(), a.data + rows.begin * a.row_stride + depth.begin * a.col_stride,
              a.row_stride, a.col_stride, strip_of(t));
  }

  // A tile's rows of A, where the kernel can read them: in place, or packed into their strip.
  const TileKernel<T>* place_rows(TileArgs<T>& tile, Span rows, Index t, Span depth) const {
    const MatrixView<const T>& a = call_.a;
    tile.a_run = tile.a_chunk = depth.size();
    tile.a_jump = 0;
    if (call_.a_form == Form::panels) {
      const Index width = panel_width(k_, depth_), within = depth.begin % width;
      tile.a = a.data + (depth.begin - within) * a.rows + rows.begin * width + within;
      tile.a_row = width;
      tile.a_step = 1;
      tile.a_run = width - within;
      tile.a_chunk = width;
      tile.a_jump = width * a.rows - width;
      return k_.kernel_rows[rows.size() - 1];
    }
    if (call_.a_form == Form::listed_rows) {
      tile.a_list = call_.a_list + rows.begin;
      tile.a_first = depth.begin;
      return k_.kernel_listed_rows[rows.size() - 1];
    }
    if (call_.a_form == Form::listed_columns) {
      tile.a_list = call_.a_list + depth.begin;
      tile.a_first = rows.begin;
      return k_.kernel_listed_columns[rows.size() - 1];
    }
    if (a_in_place_) {
      tile.a = a.data + rows.begin * a.row_stride + depth.begin * a.col_stride;
      tile.a_row = a.row_stride;
      tile.a_step = a.col_stride;
      return (a.row_stride == 1 ? k_.kernel : k_.kernel_rows)[rows.size() - 1];
    }
    tile.a = strip_of(t);
    tile.a_row = 1;
    tile.a_step = rows.size();
    return k_.kernel[rows.size() - 1];
  }

  // The columns of B in a panel: in place where its rows are adjacent vectors, otherwise packed.
  void place_columns(TileArgs<T>& tile, Span cols, Span depth, const Panel& panel) const {
    const Index j = panel.begin;
    if (call_.b_form == Form::panels) {
      tile.b = call_.b.data + panel.start * depth_ + depth.begin * panel_ + j - panel.start;
      tile.b_step = panel_;
    } else if (j - cols.begin < first_packed_) {
      tile.b = call_.b.data + depth.begin * call_.b.row_stride + j;
      tile.b_step = call_.b.row_stride;
    } else {
      tile.b = packed_ + (j - cols.begin - first_packed_) * depth.size();
      tile.b_step = packed_width_;
    }
  }

  void place_result(TileArgs<T>& tile, Index i, const Panel& panel, Span cols, Index group) const {
    if (!keeps_)
      tile.c = passing(panel, cols) + (i - group) * panel_;
    else if (call_.c_form == Form::panels)
      tile.c = call_.c + offset_in_panels(i, panel);
    else
      tile.c = call_.c + i * call_.c_row + panel.begin;
  }
  Index offset_in_panels(Index i, const Panel& panel) const {
    return panel.start * call_.a.rows + i * panel_ + panel.begin - panel.start;
  }
  // Where the rows of a panel pass through that are told of and not kept.
  T* passing(const Panel& panel, Span cols) const {
    return passing_ + (panel.begin - cols.begin) * tiles_heard * k_.rows;
  }

  // Brings a tile of C into cache while the tile's sums are made.
  static void prefetch_result(const TileArgs<T>& tile, Index rows) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(T));
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < tile.cols; j += line) __builtin_prefetch(tile.c + i * tile.c_row + j, 1);
  }

  void tell(Span rows, Span cols) const {
    for (Panel panel = first_panel(cols); panel.begin < cols.end; panel = after(panel, cols)) {
      const Index offset = offset_in_panels(rows.begin, panel);
      call_.listener->take(*call_.listener, offset, rows.size() * panel_,
                           keeps_ ? call_.c + offset : passing(panel, cols));
    }
  }

  const Kernels<T>& kernels_;
  const GemmKernels<T>& k_;
  const Gemm<T>& call_;
  const Block block_;
  Index panel_, panel_vectors_, depth_;
  bool kept_panels_, a_in_place_, b_in_place_, keeps_;
  Index first_packed_ = 0, packed_width_ = 0;  // of the block of B at hand, counted from its first column
  Index tiles_, group_;
  bool keeps_strips_, prefetches_, first_columns_ = true;
  T* strips_;
  T* packed_;
  T* passing_;
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

// A few columns of C as rows of the transpose, by strips: where A lies along its columns, as in dW = dz^T x,
// they are rows that strips read as they lie. 10 x 2 x 1000 takes 1.5 us, in blocks 5.8.
template <class T>
bool fits_turned_strips(const Kernels<T>& kernels, const Gemm<T>& call) {
  const MatrixView<const T>& a = call.a;
  return call.b.cols <= kernels.skinny.strip_rows && call.beta == T(0) && a.row_stride == 1 &&
         a.col_stride != 1;
}

// Elements that a member needs: its rows of C, transposed.
template <class T>
Index turned_strips_workspace(const Kernels<T>& kernels, const Gemm<T>& call) {
  if (call.b.cols > kernels.skinny.strip_rows) return 0;
  return checked_mul(call.b.cols, round_up(call.a.rows, kernels.gemm.lanes));
}

template <class T>
void turned_strips(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace) {
  const Span rows = team.share(call.a.rows, kernels.gemm.lanes);
  const Index n = call.b.cols;
  if (rows.size() <= 0) return;
  Gemm<T> turned;
  turned.a = call.b.transposed();
  turned.b = call.a.transposed();
  turned.b.data += rows.begin;
  turned.b.cols = rows.size();
  turned.c = workspace;
  turned.c_row = round_up(rows.size(), kernels.gemm.lanes);
  turned.alpha = call.alpha;
  strips(kernels, Team::serial(), turned);
  kernels.gemm.transpose_out(rows.size(), n, workspace, turned.c_row, call.c + rows.begin * call.c_row,
                             call.c_row, call.bias, act_in_registers(call), call.slope);
  finish_rows(kernels, call, rows, {0, n});
}

enum class Path { strips, turned_strips, narrow, dots, turned_over, blocks };

// How a product is computed: by its shape, strides and type alone.
template <class T>
Path select(const Kernels<T>& kernels, const Gemm<T>& call) {
  if (call.b_form == Form::panels_of_transpose) return Path::turned_over;
  if (call.b_form != Form::strided || call.c_form != Form::strided) return Path::blocks;
  if (fits_strips(kernels, call)) return Path::strips;
  if (fits_turned_strips(kernels, call)) return Path::turned_strips;
  if (fits_narrow(kernels, call)) return Path::narrow;
  if (fits_dots(kernels, call)) return Path::dots;
  return turns_over(kernels.gemm, call) ? Path::turned_over : Path::blocks;
}

}  // namespace

template <class T>
Index gemm_workspace(const Kernels<T>& kernels, const Gemm<T>& call) {
  if constexpr (std::is_same_v<T, float>)
    if (call.precision == Precision::bf16) return gemm_bf16_workspace(kernels, call);
  const GemmKernels<T>& g = kernels.gemm;
  const Index m = call.a.rows, n = call.b.cols, k = call.a.cols;
  const Index strips = BlockGemm<T>::strips_size(g, call);
  const Index passing = call.c_form == Form::panels ? BlockGemm<T>::passing_size(g, n) : 0;
  const Index as_it_is = BlockGemm<T>::packed_size(g, n, k) + passing;
  const Index turning = call.b_form == Form::panels_of_transpose ? m : std::min(m, most_turned_rows);
  const Index turned = BlockGemm<T>::packed_size(g, turning, k) +
                       checked_mul(round_up(n, g.lanes), round_up(turning, g.lanes));
  const Index most = std::max(strips + std::max(as_it_is, turned), turned_strips_workspace(kernels, call));
  return std::max(checked_mul(most, static_cast<Index>(sizeof(T))), skinny_workspace(kernels, call));
}

// More columns would have it packed: MNIST-sized rows times 2000 columns lost a tenth.
template <class T>
Index most_columns_of_listed(Index row) {
  return crowds_l1<T>(row) ? 0 : few_rows;
}

// Waking two threads for one product and waiting for both costs 3 us (a region within a running team less:
// serial_below). Half of it saved pays for that from 7 us on: 64 x 64 x 64 takes 5.2 us on one thread and 7.6
// on two, 80 x 80 x 80 9.9 and 9.0; a vector times 256 x 256 3.5 and 5.3, times 512 x 512 13.4 and 12.0.
template <class T>
int gemm_members(const Gemm<T>& call, int most) {
  const double m = static_cast<double>(call.a.rows), k = static_cast<double>(call.a.cols),
               n = static_cast<double>(call.b.cols), size = sizeof(T);
  const bool computes_long = 2 * m * n * k * size >= 8e5 * sizeof(float);
  const bool reads_long = (m * k + k * n + m * n) * size >= 5e5;
  return computes_long || reads_long ? most : 1;
}

template <class T>
const char* gemm_path(const Kernels<T>& kernels, const Gemm<T>& call) {
  if (call.precision == Precision::bf16) return gemm_bf16_path(kernels.bf16);
  if (call.b_form == Form::panels_of_transpose) return "turned over, b in panels";
  const bool listed = call.a_form == Form::listed_rows || call.a_form == Form::listed_columns;
  if (call.b_form == Form::panels) return listed ? "a listed, b in panels" : "b in panels";
  if (call.c_form == Form::panels) return listed ? "a listed, into panels" : "into panels";
  if (is_plain_column(call)) return gemm_path(kernels, as_row(call));
  switch (select(kernels, call)) {
    case Path::strips:
      return "strips";
    case Path::turned_strips:
      return "strips, turned over";
    case Path::narrow:
      return "narrow";
    case Path::dots:
      return "dots";
    case Path::turned_over:
      return "turned over";
    case Path::blocks:
      break;
  }
  const bool a = a_in_place(call), b = b_in_place(call);
  return a && b ? "in place" : a ? "a in place" : b ? "b in place" : "packed";
}

template <class T>
void gemm(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, void* workspace) {
  T* memory = static_cast<T*>(workspace);
  if constexpr (std::is_same_v<T, float>)
    if (call.precision == Precision::bf16) return gemm_bf16(kernels, team, call, memory);
  if (is_plain_column(call)) return gemm(kernels, team, as_row(call), workspace);
  switch (select(kernels, call)) {
    case Path::strips:
      return strips(kernels, team, call);
    case Path::turned_strips:
      return turned_strips(kernels, team, call, memory);
    case Path::narrow:
      return narrow(kernels, team, call, memory);
    case Path::dots:
      return dots(kernels, team, call, memory);
    case Path::turned_over:
      return gemm_turned_over(kernels, team, call, memory);
    case Path::blocks:
      break;
  }
  // A listener's stretches are whole panels. And the member that multiplies by a panel of weights is the one
  // that updates it: a line that changes cores each step costs the update three times its time.
  const GemmKernels<T>& k = kernels.gemm;
  const bool panels = call.b_form == Form::panels || call.c_form == Form::panels;
  const Index grain = call.c_form == Form::panels ? panel_width(k, call.b.cols) : k.lanes;
  BlockGemm<T>(kernels, call, block_of(team, call.a.rows, call.b.cols, grain, panels), memory).run();
}

#define GEMMULE_INSTANTIATE(T)                                          \
  template Index most_columns_of_listed<T>(Index);                      \
  template int gemm_members<T>(const Gemm<T>&, int);                    \
  template Index gemm_workspace<T>(const Kernels<T>&, const Gemm<T>&);  \
  template const char* gemm_path<T>(const Kernels<T>&, const Gemm<T>&); \
  template void gemm<T>(const Kernels<T>&, const Team&, const Gemm<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
