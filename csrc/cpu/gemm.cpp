#include "cpu/gemm.h"

#include <algorithm>
#include <type_traits>

#include "cpu/block_gemm.h"
#include "cpu/gemm_bf16.h"
#include "cpu/skinny.h"

namespace gemmule::cpu {
namespace {

// Z = X W^T for a small batch: computed as Z^T = W X^T, so that W, the larger operand, is read as it lies and
// X is the one that is packed; Z^T then turns over in L2. With 31 rows of 784 by 256 it saves a tenth, with
// 64 0.08, with 128 0.02: many make packing W cheap beside the product.
inline constexpr Index most_turned_rows = 128;
// Lanes of the last vector that may stay idle: 28, 44 and 60 rows break even, 100 take 1.09 of the time.
inline constexpr Index most_idle_lanes = 3;

// Where W's rows meet in L1 it is packed either way: 32 x 512 x 512 turned over takes 1.10 of the time, 100 x
// 1024 x 1024 1.11, with AVX2 1.05 and 1.06 (Zen 4). But a W of so many bytes comes from memory, and its
// strips are fetched while the ones before are multiplied: 64 x 4096 x 1024 0.95, on two threads 0.90.
inline constexpr Index turned_from_memory = 8 * 1024 * 1024;
template <class T>
bool turns_over(const GemmKernels<T>& k, const Gemm<T>& call) {
  if (call.b_form != Form::strided) return call.b_form == Form::panels_of_transpose;
  const Index m = call.a.rows, n = call.b.cols;
  return call.b.row_stride == 1 && call.b.col_stride != 1 && call.beta == T(0) && m >= k.lanes &&
         m <= most_turned_rows && round_up(m, k.lanes) - m <= most_idle_lanes && n >= 2 * m &&
         (!crowds_l1<T>(call.b.col_stride) ||
          n * call.b.col_stride * static_cast<Index>(sizeof(T)) > turned_from_memory);
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

// A member's columns of C, as rows of the transpose: from a line of C to a line.
template <class T>
void gemm_turned_over(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace) {
  const GemmKernels<T>& k = kernels.gemm;
  const Index m = call.a.rows, n = call.b.cols, t_row = round_up(m, k.lanes);
  const Index offset = std::max<Index>(0, offset_in_line(call));
  const Span lines = team.share(offset + n, in_a_line<T>);
  const Span cols{std::max<Index>(0, lines.begin - offset), lines.end - offset};
  if (cols.size() <= 0) return;
  T* product = workspace;
  T* rest = workspace + round_up(n, k.lanes) * t_row;
  const Gemm<T> turned = turned_over(k, call, product);
  BlockGemm<T>(kernels, turned, {cols, {0, m}}, rest).run();
  const T* bias = call.bias ? call.bias + cols.begin : nullptr;
  k.transpose_out(m, cols.size(), product + cols.begin * t_row, t_row, call.c + cols.begin, call.c_row, bias,
                  act_in_registers(call), call.slope);
  finish_rows(kernels, call, {0, m}, cols);
}

// A few columns of C as rows of the transpose, by strips: where A lies along its columns, as in dW = dz^T x,
// they are rows that strips read as they lie. 10 x 2 x 1000 takes 1.5 us, in blocks 5.8. Columns that do not
// fill a vector are few too: 64 x 13 x 1000 takes 0.73 of the time, 1000 x 13 x 1000 0.82, 100 x 13 x 64
// 0.98, with AVX2 64 x 7 x 1000 0.71 (Zen 4).
template <class T>
Index most_turned_strips(const Kernels<T>& kernels) {
  return std::max<Index>(kernels.skinny.strip_rows, kernels.gemm.lanes - 1);
}
template <class T>
bool fits_turned_strips(const Kernels<T>& kernels, const Gemm<T>& call) {
  const MatrixView<const T>& a = call.a;
  const Index most = a.cols < kernels.gemm.lanes ? kernels.skinny.strip_rows : most_turned_strips(kernels);
  return call.b.cols <= most && call.beta == T(0) && a.row_stride == 1 && a.col_stride != 1;
}

// Elements that a member needs: its rows of C, transposed.
template <class T>
Index turned_strips_workspace(const Kernels<T>& kernels, const Gemm<T>& call) {
  if (call.b.cols > most_turned_strips(kernels)) return 0;
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

// As many rows at a time as keep their strips in cache.
template <class T>
void gemm_on_the_way(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, T* workspace) {
  const Index m = call.a.rows, height = kernels.gemm.rows, tiles = pieces(m, height);
  const Index blocks = pieces(tiles, tiles_on_the_way(kernels.gemm));
  for (Index i = 0; i < blocks; ++i) {
    const Span rows{cut(tiles, blocks, i) * height, std::min(cut(tiles, blocks, i + 1) * height, m)};
    BlockGemm<T>(kernels, call, {rows, {0, call.b.cols}}, workspace).run_by_panels(team);
  }
}

// How many last columns are made apart: those that would leave half of a vector or more of every tile idle,
// where that is much of its work. By dots, or as strips of the transpose, 100 x 100 x 100 takes 0.93 of the
// time, 1000 x 100 x 100 0.92, 64 x 784 x 100 0.89, 257 x 257 x 257 0.96, 200 x 200 x 200 0.98; with AVX2 97
// x 97 x 97 0.95, 100 x 100 x 100 0.98. Of 500 columns and more nothing is left of it: 0.97 to 1.01 (Zen 4).
template <class T>
Index last_columns(const Kernels<T>& kernels, const Gemm<T>& call) {
  const Index n = call.b.cols, lanes = kernels.gemm.lanes, left = n % lanes;
  // Fewer are left whole: so small matrices of a stack (stack.cpp) have the bits of each product alone.
  constexpr Index fewest = 33;
  if (left == 0 || 2 * left > lanes || n < fewest || n > 16 * lanes) return 0;
  if (call.b_form != Form::strided || call.c_form != Form::strided || call.a_form != Form::strided) return 0;
  if (call.listener || call.saved || call.precision == Precision::bf16) return 0;
  const bool dots = call.a.col_stride == 1 && call.a.cols >= 2 * lanes;
  const bool strips = call.a.row_stride == 1 && call.beta == T(0);
  return dots || strips ? left : 0;
}

template <class T>
Gemm<T> columns_of(const Gemm<T>& call, Span cols) {
  Gemm<T> part = call;
  part.b.data += cols.begin * call.b.col_stride;
  part.b.cols = cols.size();
  part.c += cols.begin;
  if (call.bias) part.bias += cols.begin;
  return part;
}
template <class T>
Gemm<T> without_last(const Gemm<T>& call, Index last) {
  return columns_of(call, {0, call.b.cols - last});
}
template <class T>
Gemm<T> only_last(const Gemm<T>& call, Index last) {
  return columns_of(call, {call.b.cols - last, call.b.cols});
}

enum class Path { outer, strips, turned_strips, narrow, dots, turned_over, blocks };

// How a product is computed: by its shape, strides and type alone.
template <class T>
Path select(const Kernels<T>& kernels, const Gemm<T>& call) {
  if (call.b_form == Form::panels_of_transpose) return Path::turned_over;
  if (call.b_form != Form::strided || call.c_form != Form::strided) return Path::blocks;
  if (fits_outer(kernels, call)) return Path::outer;
  if (fits_strips(kernels, call)) return Path::strips;
  if (fits_turned_strips(kernels, call)) return Path::turned_strips;
  if (call.b.cols == 1 && fits_dots(kernels, call)) return Path::dots;
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
  const Index strips = strips_size(g, call);
  const Index passing = passing_size(g, n);
  const Index as_it_is = 2 * packed_size(g, k, n) + passing;
  const Index turning = call.b_form == Form::panels_of_transpose ? m : std::min(m, most_turned_rows);
  const Index turned =
      packed_size(g, k, turning) + checked_mul(round_up(n, g.lanes), round_up(turning, g.lanes));
  const Index most = std::max(strips + std::max(as_it_is, turned), turned_strips_workspace(kernels, call));
  const Index whole =
      std::max(checked_mul(most, static_cast<Index>(sizeof(T))), skinny_workspace(kernels, call));
  const Index last = last_columns(kernels, call);
  if (last == 0) return whole;
  return std::max({whole, gemm_workspace(kernels, without_last(call, last)),
                   gemm_workspace(kernels, only_last(call, last))});
}

// More columns would have it packed: MNIST-sized rows times 2000 columns lost a tenth.
template <class T>
Index most_columns_of_listed(Index row) {
  return crowds_l1<T>(row) ? 0 : few_rows;
}

// Waking two threads for one product and waiting for both costs 1.5 us (a region within a running team less:
// serial_below), and half of a product saved pays for that from 3 us on: 48 x 48 x 48 takes 2.6 us on one
// thread and 2.5 on two, 64 x 64 x 64 5.2 and 4.0; a vector times 256 x 256 3.7 and 3.1, an outer product of
// 256 x 256 5.8 and 4.1 (Zen 4). More threads take longer to wake, how much is not measured.
template <class T>
int gemm_members(const Gemm<T>& call, int members) {
  const double m = static_cast<double>(call.a.rows), k = static_cast<double>(call.a.cols),
               n = static_cast<double>(call.b.cols), size = sizeof(T);
  const double teams = members / 2.0;
  const bool computes_long = 2 * m * n * k * size >= 2.4e5 * sizeof(float) * teams;
  const bool reads_long = (m * k + k * n + m * n) * size >= 1.9e5 * teams;
  return computes_long || reads_long ? members : 1;
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
    case Path::outer:
      return "outer products";
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
  if (last_columns(kernels, call) > 0) return "last columns apart";
  if (packs_on_the_way(kernels.gemm, call)) return "packed on the way";
  const bool a = a_in_place(call), b = b_in_place(call);
  return a && b ? "in place" : a ? "a in place" : b ? "b in place" : "packed";
}

template <class T>
bool gemm_tells(const Kernels<T>& kernels, const Gemm<T>& call) {
  return call.precision == Precision::full && !is_plain_column(call) && select(kernels, call) == Path::blocks;
}

template <class T>
void gemm(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, void* workspace) {
  T* memory = static_cast<T*>(workspace);
  if constexpr (std::is_same_v<T, float>)
    if (call.precision == Precision::bf16) return gemm_bf16(kernels, team, call, memory);
  if (is_plain_column(call)) return gemm(kernels, team, as_row(call), workspace);
  switch (select(kernels, call)) {
    case Path::outer:
      return outer(kernels, team, call);
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
  if (const Index last = last_columns(kernels, call); last > 0) {
    gemm(kernels, team, without_last(call, last), workspace);
    return gemm(kernels, team, only_last(call, last), workspace);
  }
  if (packs_on_the_way(kernels.gemm, call)) return gemm_on_the_way(kernels, team, call, memory);
  const Block whole{{0, call.a.rows}, {0, call.b.cols}};
  if (by_panels(kernels.gemm, call)) return BlockGemm<T>(kernels, call, whole, memory).run_by_panels(team);
  if (together(team, call)) return BlockGemm<T>(kernels, call, whole, memory).run_together(team);
  // A listener's stretches are whole panels. And the member that multiplies by a panel of weights is the one
  // that updates it: a line that changes cores each step costs the update three times its time.
  const GemmKernels<T>& k = kernels.gemm;
  const Index grain = call.c_form == Form::panels ? panel_width(k, call.b.cols) : k.lanes;
  BlockGemm<T>(kernels, call, block_of(team, call, grain), memory).run();
}

#define GEMMULE_INSTANTIATE(T)                                          \
  template Index most_columns_of_listed<T>(Index);                      \
  template int gemm_members<T>(const Gemm<T>&, int);                    \
  template Index gemm_workspace<T>(const Kernels<T>&, const Gemm<T>&);  \
  template const char* gemm_path<T>(const Kernels<T>&, const Gemm<T>&); \
  template bool gemm_tells<T>(const Kernels<T>&, const Gemm<T>&);       \
  template void gemm<T>(const Kernels<T>&, const Team&, const Gemm<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
