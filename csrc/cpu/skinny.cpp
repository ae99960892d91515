#include "cpu/skinny.h"

#include "cpu/gemm_parts.h"
#include "cpu/in_place.h"

namespace gemmule::cpu {
namespace {

bool adjacent(Index stride, Index count) { return stride == 1 || count <= 1; }

// So little depth that writing C takes much of the time.
inline constexpr Index little_depth = 12;
// A C that is not in a cache: see the kernel of outer products.
inline constexpr Index result_in_memory = 8 * 1024 * 1024;
// Of less depth yet, and a C that is not in L1: its lines are fetched two blocks ahead of the one at hand.
// 256 x 784 x 1 takes 0.74 of the time so, x 8 0.93, 1024 x 1024 x 1 0.76, 10 x 2048 x 2 0.81, but 1000 x
// 1000 x 12 1.08 (Emerald Rapids).
inline constexpr Index fetched_depth = 8, result_beyond_l1 = 64 * 1024;
// Four rows at a time: more rows of C that are a multiple of 4 KB apart would push one another's lines out of
// L1 before they are full. 10 x 2048 x 8 takes 0.84 of the time so, 10 x 2048 x 5 0.69, 10 x 784 x 8 0.91
// (Zen 4).
inline constexpr Index rows_written = 4;

// Dots read two vectors for at most four FMAs and add lanes at the end. Up to twelve rows or columns that
// beats lanes left idle; 16 columns fill a vector: 1000 x 16 x 777 takes 227 us in blocks, 292 by dots.
inline constexpr Index few = 12;

// Depth that dots go at a time: four rows of it stay in L1.
inline constexpr Index dots_depth_bytes = 8192;

// A single row or column is written whole vector by whole vector: 1000 x 1 x 10 takes 2.8 us by dots and 4.4
// narrow (Zen 4).
inline constexpr Index line_depth = 6;

// Of fewer rows a team divides the columns, and shorter rows of C are tiles.
inline constexpr Index outer_rows = 4, outer_vectors = 2;

// Narrow products: one step of the depth is an FMA for a row or two, whatever the width; dots take `lanes` of
// them, and some for adding the lanes. 1000 x 10 x 100 takes 38 us narrow and 55 by dots, at a depth of 200
// 76 and 84; two columns break even at 24 (AVX2). Where half of a vector would idle dots are ahead as soon as
// they fit: 100 x 8 x 100 takes 0.71 of the time by dots, 100 x 5 x 128 0.65; and where a quarter of one of
// 16 lanes would: 100 x 10 x 128 0.84, 100 x 10 x 100 0.93, 100 x 12 x 96 1.04 (Zen 4, whose FMA of 512 bits
// takes two cycles).
inline constexpr Index narrow_depth = 128;

// Adding the lanes of dots costs as much as a few vectors of depth. With up to four rows there is little else
// to do; 100 x 8 x 64 takes 2.0 us in blocks and 2.2 by dots, at a depth of 100 4.0 and 3.1.
inline constexpr Index fewest_vectors_of_dots = 6, of_few_dots = 2;

// Rows that are always a strip. More, up to a tile's, only where blocks would pack all of B for them: 10 x
// 2048 x 128 takes 0.75 of the time, x 32 0.65; 10 x 512 x 512, whose B is read in place, 1.1 to 1.3 (Emerald
// Rapids).
inline constexpr Index short_strip = 8;

template <class T>
Index narrow_depth_of(const Kernels<T>& kernels, Index cols) {
  const Index lanes = kernels.gemm.lanes;
  if (cols <= 4) return std::max<Index>(16, 3 * lanes);
  return 2 * cols <= lanes || lanes > few ? fewest_vectors_of_dots * lanes - 1 : narrow_depth;
}

template <class T>
Index narrow_vectors(const Kernels<T>& kernels, const Gemm<T>& call) {
  return pieces(call.b.cols, kernels.gemm.lanes);
}

}  // namespace

template <class T>
bool fits_outer(const Kernels<T>& kernels, const Gemm<T>& call) {
  const Index m = call.a.rows, k = call.a.cols, n = call.b.cols;
  return m >= outer_rows && k >= 1 && k <= max_outer_depth && n > outer_vectors * kernels.gemm.lanes &&
         adjacent(call.b.col_stride, n);
}

template <class T>
bool fits_strips(const Kernels<T>& kernels, const Gemm<T>& call) {
  const Index m = call.a.rows, k = call.a.cols, n = call.b.cols;
  if (!adjacent(call.b.col_stride, n)) return false;
  // Short rows of C are tiles as well: 128 x 256 x 8 takes 0.90 of the time in blocks, 128 x 384 x 8 0.91,
  // 128 x 512 x 8 1.08, 256 x 784 x 12 1.08; with AVX2 128 x 192 x 8 0.96, 128 x 256 x 8 1.12 (Zen 4).
  const Index most = b_in_place(call) ? short_strip : max_strip_rows;
  return m <= std::min<Index>(kernels.skinny.strip_rows, most) ||
         (k <= little_depth && n > 24 * kernels.gemm.lanes);
}

template <class T>
bool fits_dots(const Kernels<T>& kernels, const Gemm<T>& call) {
  const Index m = call.a.rows, k = call.a.cols, n = call.b.cols;
  const Index small = m < n || call.a.col_stride != 1 ? m : n;
  const bool along = small == m ? adjacent(call.b.row_stride, k) : adjacent(call.a.col_stride, k);
  const bool line = small == 1 && (m == 1 || call.c_row == 1);
  return small <= few && along &&
         k >= (line ? line_depth : (small <= 4 ? of_few_dots : fewest_vectors_of_dots) * kernels.gemm.lanes);
}

template <class T>
bool fits_narrow(const Kernels<T>& kernels, const Gemm<T>& call) {
  const Index m = call.a.rows, k = call.a.cols, vectors = narrow_vectors(kernels, call);
  return m > std::min<Index>(kernels.skinny.strip_rows, short_strip) &&
         k <= narrow_depth_of(kernels, call.b.cols) && adjacent(call.a.col_stride, k) && vectors >= 1 &&
         vectors <= max_narrow_vectors;
}

template <class T>
Index skinny_workspace(const Kernels<T>& kernels, const Gemm<T>& call) {
  const Index m = std::min(call.a.rows, few), n = std::min(call.b.cols, few), k = call.a.cols;
  const Index a = adjacent(call.a.col_stride, k) ? 0 : checked_mul(m, k);
  const Index b = adjacent(call.b.row_stride, k) ? 0 : checked_mul(n, k);
  const Index packed = (std::min(k, narrow_depth) + 1) * max_narrow_vectors * kernels.gemm.lanes;
  return checked_mul(std::max(checked_add(a, b), packed), static_cast<Index>(sizeof(T)));
}

template <class T>
void outer(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call) {
  const Span rows = team.share(call.a.rows), cols{0, call.b.cols};
  if (rows.size() <= 0) return;
  TileArgs<T> tile = {};
  tile.a = call.a.data + rows.begin * call.a.row_stride;
  tile.a_row = call.a.row_stride;
  tile.a_step = call.a.col_stride;
  tile.b = call.b.data;
  tile.b_step = call.b.row_stride;
  tile.c = call.c + rows.begin * call.c_row;
  tile.c_row = call.c_row;
  tile.cols = cols.size();
  tile.alpha = call.alpha;
  tile.beta = call.beta;
  tile.bias = call.bias;
  tile.act = act_in_registers(call);
  tile.slope = call.slope;
  if (call.a.rows * cols.size() * static_cast<Index>(sizeof(T)) >= result_in_memory) tile.fetch = tile.c;
  kernels.skinny.outer[call.a.cols - 1](tile, rows.size());
  finish_rows(kernels, call, rows, cols);
}

template <class T>
void strips(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call) {
  const SkinnyKernels<T>& s = kernels.skinny;
  const Index m = call.a.rows, k = call.a.cols, n = call.b.cols;
  const bool one_strip = m <= s.strip_rows;
  const Span rows = one_strip ? Span{0, m} : team.share(m, rows_written);
  const Span cols = one_strip ? team.share(n, kernels.gemm.lanes) : Span{0, n};
  if (rows.size() <= 0 || cols.size() <= 0) return;
  const Index depths = std::max<Index>(1, pieces(k, kernels.gemm.depth_block));
  const Index groups = pieces(rows.size(), k <= little_depth ? rows_written : s.strip_rows);
  TileArgs<T> tile = {};
  tile.a_row = call.a.row_stride;
  tile.a_step = call.a.col_stride;
  tile.b_step = call.b.row_stride;
  tile.c_row = call.c_row;
  tile.cols = cols.size();
  tile.alpha = call.alpha;
  tile.slope = call.slope;
  if (k <= fetched_depth && m * n * static_cast<Index>(sizeof(T)) >= result_beyond_l1) tile.fetch = call.c;
  for (Index pc = 0; pc < depths; ++pc) {
    const Span depth = {cut(k, depths, pc), cut(k, depths, pc + 1)};
    const bool last = pc + 1 == depths;
    tile.depth = depth.size();
    tile.beta = pc == 0 ? call.beta : T(1);
    tile.act = last ? act_in_registers(call) : Act::identity;
    tile.b = call.b.data + depth.begin * call.b.row_stride + cols.begin;
    tile.bias = last && call.bias ? call.bias + cols.begin : nullptr;
    for (Index g = 0; g < groups; ++g) {
      const Index i0 = rows.begin + cut(rows.size(), groups, g);
      const Index i1 = rows.begin + cut(rows.size(), groups, g + 1);
      tile.a = call.a.data + i0 * call.a.row_stride + depth.begin * call.a.col_stride;
      tile.c = call.c + i0 * call.c_row + cols.begin;
      s.strip[i1 - i0 - 1](tile);
      if (last) finish_rows(kernels, call, {i0, i1}, cols);
    }
  }
}

template <class T>
void dots(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace) {
  const SkinnyKernels<T>& s = kernels.skinny;
  const Index m = call.a.rows, k = call.a.cols, n = call.b.cols;
  MatrixView<const T> a = call.a, b = call.b;
  if (!adjacent(a.col_stride, k)) {
    kernels.gemm.pack_a(k, m, a.data, a.col_stride, a.row_stride, workspace);
    a = {workspace, m, k, k, 1};
    workspace += m * k;
  }
  if (!adjacent(b.row_stride, k)) {
    kernels.gemm.pack_a(k, n, b.data, b.row_stride, b.col_stride, workspace);
    b = {workspace, k, n, 1, k};
  }
  // The tile: one or two rows as they are, otherwise about square.
  int shape = 0;
  while ((Index{1} << shape) < m && (s.dots_size >> shape) > std::min<Index>(n, 4)) ++shape;
  const Index tile_rows = Index{1} << shape, tile_cols = s.dots_size >> shape;

  const bool tall = m > n;
  const Span rows = tall ? team.share(m, tile_rows) : Span{0, m};
  const Span cols = tall ? Span{0, n} : team.share(n, tile_cols);
  if (rows.size() <= 0 || cols.size() <= 0) return;
  const Index left = cols.size() % tile_cols;
  const Index narrow = left > 0 && 2 * left <= tile_cols ? cols.end - left : cols.end;
  const Index deepest = std::min<Index>(384 * kernels.gemm.lanes,
                                        std::min(m, n) > 2 ? dots_depth_bytes / Index{sizeof(T)} : 1 << 20);
  const Index depths = std::max<Index>(1, pieces(k, deepest));
  DotArgs<T> tile = {};
  tile.a_row = a.row_stride;
  tile.b_row = b.col_stride;
  tile.c_row = call.c_row;
  tile.alpha = call.alpha;
  tile.slope = call.slope;
  for (Index pc = 0; pc < depths; ++pc) {
    const Index p = cut(k, depths, pc);
    const bool last = pc + 1 == depths;
    tile.depth = cut(k, depths, pc + 1) - p;
    tile.beta = pc == 0 ? call.beta : T(1);
    tile.act = last ? act_in_registers(call) : Act::identity;
    const auto one = [&](Index i, Index j, int form) {
      tile.rows = std::min(Index{1} << form, rows.end - i);
      tile.cols = std::min<Index>(s.dots_size >> form, cols.end - j);
      tile.a = a.data + i * a.row_stride + p;
      tile.b = b.data + j * b.col_stride + p;
      tile.c = call.c + i * call.c_row + j;
      tile.bias = last && call.bias ? call.bias + j : nullptr;
      s.dots[form](tile);
    };
    // The larger operand passes once; the other one's rows stay in L1. Columns that fill half a tile's width
    // are taken twice as high: 1000 x 10 x 256 takes 67 us so, all tiles alike 79.
    if (tall)
      for (Index i = rows.begin; i < rows.end; i += 2 * tile_rows) {
        for (Index j = cols.begin; j < narrow; j += tile_cols)
          for (Index t = i; t < std::min(i + 2 * tile_rows, rows.end); t += tile_rows) one(t, j, shape);
        if (narrow < cols.end) one(i, narrow, shape + 1);
      }
    else
      for (Index j = cols.begin; j < cols.end; j += tile_cols)
        for (Index i = rows.begin; i < rows.end; i += tile_rows) one(i, j, shape);
  }
  finish_rows(kernels, call, rows, cols);
}

template <class T>
void narrow(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace) {
  const Index k = call.a.cols, n = call.b.cols, vectors = narrow_vectors(kernels, call);
  const Span rows = team.share(call.a.rows, rows_written);
  if (rows.size() <= 0) return;
  TileArgs<T> tile = {};
  tile.depth = k;
  tile.a = call.a.data + rows.begin * call.a.row_stride;
  tile.a_row = call.a.row_stride;
  tile.a_step = 1;
  tile.b_step = vectors * kernels.gemm.lanes;
  tile.b = workspace;
  kernels.gemm.pack_b(k, n, tile.b_step, call.b.data, call.b.row_stride, call.b.col_stride, workspace);
  tile.c = call.c + rows.begin * call.c_row;
  tile.c_row = call.c_row;
  tile.cols = n;
  tile.alpha = call.alpha;
  tile.beta = call.beta;
  tile.bias = call.bias;
  tile.act = act_in_registers(call);
  tile.slope = call.slope;
  kernels.skinny.narrow[vectors - 1](tile, rows.size());
  finish_rows(kernels, call, rows, {0, n});
}

#define GEMMULE_INSTANTIATE(T)                                               \
  template bool fits_outer<T>(const Kernels<T>&, const Gemm<T>&);            \
  template bool fits_strips<T>(const Kernels<T>&, const Gemm<T>&);           \
  template bool fits_dots<T>(const Kernels<T>&, const Gemm<T>&);             \
  template bool fits_narrow<T>(const Kernels<T>&, const Gemm<T>&);           \
  template Index skinny_workspace<T>(const Kernels<T>&, const Gemm<T>&);     \
  template void outer<T>(const Kernels<T>&, const Team&, const Gemm<T>&);    \
  template void strips<T>(const Kernels<T>&, const Team&, const Gemm<T>&);   \
  template void dots<T>(const Kernels<T>&, const Team&, const Gemm<T>&, T*); \
  template void narrow<T>(const Kernels<T>&, const Team&, const Gemm<T>&, T*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
