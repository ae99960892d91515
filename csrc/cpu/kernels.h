// The kernel table: what one instruction set offers, as data. Each file in isa/ fills one table per
// element type; everything above reads tiles, block sizes and function pointers from the active one.
//
// Plain data only: ISA files include this header, and a shared inline or template function compiled with
// their flags could be kept by the linker for every CPU.
#pragma once
#include "core/kinds.h"
#include "core/updates.h"
#include "cpu/gemm_kernels.h"

namespace gemmule::cpu {

// A row of outputs of a depthwise convolution, for a panel of channels: for c < channels
//   out[o out_step + c] = act(bias[c] + sum over r, s of x[o x_step + r tap_row + s tap_col + c] w[r, s, c])
// with the taps of a row of w `width` apart, its rows weight_row, zeros beyond the channels. `act` as for a
// tile.
template <class T>
struct DepthwiseArgs {
  Index taps_y, taps_x, tap_row, tap_col, weight_row;
  Index outputs, x_step, out_step;
  Index channels;
  const T* x;
  const T* weight;
  Index width;
  const T* bias;  // nullptr, or `channels` long
  T* out;
  Act act;
  T slope;
};

// One row of outputs or two of 3 x 3 windows that move by a pixel:
//   out[q out_row + o out_step + c] = act(bias[c] + sum over r, s < 3 of
//       x[q + r][(o + s) x_step + c] weight[panel of c][(3 r + s) width + c in it])
// What lies outside the image takes no part: rows that do are nullptr, and of the others the first pixel
// unless `before`, the last unless `after`.
template <class T>
struct DepthwiseRowsArgs {
  Index rows;     // 1 or 2
  const T* x[4];  // rows + 2 of them
  bool before, after;
  Index outputs, x_step, out_step, out_row;
  Index channels;
  const T* weight;  // in panels of (9, width)
  Index width;
  const T* bias;  // nullptr, or `channels` long
  T* out;
  Act act;
  T slope;
};

// sums[r sums_row + s width + c] += sum over o of x[o x_step + r tap_row + s tap_col + c] dz[o dz_step + c],
// r < rows, s < taps; zeros are added beyond the channels.
template <class T>
struct DepthwiseGradArgs {
  Index rows, tap_row, sums_row;
  Index taps, tap_col;
  Index outputs, x_step, dz_step;  // at most 384 outputs
  Index channels;
  const T* x;
  const T* dz;
  T* sums;
  Index width;
};

// The same for windows as in DepthwiseRowsArgs, with two outputs or more: sums[panel of c][(3 r + s) width +
// c in it] += sum over q < rows and o of x[q + r][(o + s) x_step + c] dz[q dz_row + o dz_step + c].
template <class T>
struct DepthwiseRowsGradArgs {
  Index rows;
  const T* x[4];
  bool before, after;
  Index outputs, x_step, dz_step, dz_row;
  Index channels;
  const T* dz;
  T* sums;
  Index width;
};

// [v - 1]: for up to v vectors of channels.
template <class T>
struct DepthwiseKernels {
  void (*forward[max_tile_vectors])(const DepthwiseArgs<T>&);
  void (*rows_of_three)(const DepthwiseRowsArgs<T>&);
  void (*weights[max_tile_vectors])(const DepthwiseGradArgs<T>&);
  void (*weights_of_three)(const DepthwiseRowsGradArgs<T>&);
};

// Winograd's transforms for F(m x m, 3 x 3): a tile of n x n pixels, n = m + 2, gives m x m outputs, and its
// n^2 components are numbered row by row. A component of a tile lies in one piece, channel by channel, the
// next one `step` elements further.
//
// B^T d B of the tile whose pixels are at these n^2 addresses, and A e A^T of the tile whose outputs'
// gradients are at these m^2; v is written to whole vectors of channels.
template <class T>
struct WinogradInputArgs {
  Index channels;
  const T* const* pixels;
  T* v;
  Index v_step;
};
// G g G^T: for `count` filters' channels, a multiple of lanes, whose nine taps lie tap_step apart.
template <class T>
struct WinogradFilterArgs {
  Index count;
  const T* taps;
  Index tap_step;
  T* u;
  Index u_step;
};
// act(A^T m A + bias): the first `rows` x `cols` outputs of the tile; m is read to whole vectors. `act` as
// for a tile.
template <class T>
struct WinogradOutputArgs {
  const T* m;
  Index m_step;
  Index filters;
  const T* bias;  // nullptr, or `filters` long
  Act act;
  T slope;
  T* out;
  Index row_step, pixel_step;
  Index rows, cols;
};

// taps = G^T u G, or taps += where `add`: back from `count` gradients of transformed filters' channels.
template <class T>
struct WinogradFilterGradArgs {
  Index count;
  const T* u;
  Index u_step;
  T* taps;
  Index tap_step;
  bool add;
};

template <class T>
struct WinogradKernels {
  void (*input)(const WinogradInputArgs<T>&);
  void (*filters)(const WinogradFilterArgs<T>&);
  void (*output)(const WinogradOutputArgs<T>&);
  void (*output_grad)(const WinogradInputArgs<T>&);
  void (*filters_grad)(const WinogradFilterGradArgs<T>&);
};

// The position of a dropout layer's draws in the network's Philox stream.
struct DropoutArgs {
  std::uint64_t key = 0;    // the network's
  std::uint64_t step = 0;   // training step
  std::uint32_t layer = 0;  // which dropout layer
  double rate = 0;          // probability of zero
};

// Predictions and their targets: T (rows x cols), or for losses of classes std::int64_t (rows) where
// `labels`.
template <class T>
struct LossArgs {
  Loss loss;
  T parameter;  // core/losses.h says of what
  Index rows, cols;
  const T* pred;
  const void* target;
  bool labels;
};

// Contiguous arrays, `count` or rows * cols long; dst may be any of the inputs itself, never a shifted
// overlap.
template <class T>
struct ElementKernels {
  void (*activation)(Act act, T slope, Index count, const T* z, T* h);
  // dz = dh f'(z); `saved` is z or h as saves_input() says.
  void (*activation_grad)(Act act, T slope, Index count, const T* dh, const T* saved, T* dz);
  void (*add)(Index count, const T* a, const T* b, T* dst);
  void (*exp)(Index count, const T* x, T* dst);
  void (*erf)(Index count, const T* x, T* dst);
  // Rows of length cols.
  void (*softmax)(Index rows, Index cols, const T* z, T* h);
  void (*softmax_grad)(Index rows, Index cols, const T* dh, const T* h, T* dz);
  // dst = x mask / (1 - rate); row r is sample first_row + r. The same call on a gradient is the adjoint.
  void (*dropout)(const DropoutArgs& args, Index first_row, Index rows, Index cols, const T* x, T* dst);
  // dst[j] = sum over rows of x[i * x_row + j] (+ dst[j] if accumulate), for j < cols; an accumulator takes
  // at most 384 terms.
  void (*sum_rows)(Index rows, Index cols, const T* x, Index x_row, T* dst, bool accumulate);
  // Loss of each sample (a mean over outputs for the elementwise losses).
  void (*loss)(const LossArgs<T>& args, double* sample_loss);
  // dpred = scale * d(sum of sample losses)/dpred, or, where `shares` are given, row r by shares[r]; a share
  // of 0 makes zeros, whatever pred and target are.
  void (*loss_grad)(const LossArgs<T>& args, T scale, const T* shares, T* dpred);
  // One optimizer step over flat buffers, with the slots that the rule has, then the running average where
  // there is one. Returns the largest magnitude written (weights and slots), infinity where that is not a
  // number.
  double (*update)(Rule rule, const UpdateArgs& args, Index count, T* weight, const T* grad, T* const* slots);
  // The sum of clamp(x, -limit, limit)^2, in double.
  double (*sum_squares)(Index count, T limit, const T* x);
  // y = a x + b y; b = 0 never reads y.
  void (*axpby)(Index count, T a, const T* x, T b, T* y);
  // max |x|, infinity where x holds NaN.
  double (*max_abs)(Index count, const T* x);
  // dst = scale * src, with one rounding.
  void (*scale_bytes)(Index count, const std::uint8_t* src, T scale, T* dst);
};

// Windows along one axis of an image: that of output o covers the places o stride - before + t, t < kernel,
// of which at least one lies in [0, size).
struct PoolAxis {
  Index size, outputs, kernel, stride, before;
};

// Pooling of an image (y.size, x.size, channels) to (y.outputs, x.outputs, channels), both contiguous.
struct PoolShape {
  PoolAxis y, x;
  Index channels;
  bool count_padding;  // in what an average is divided by
};

// One row at a time, of one image: that of `row` of the outputs is made from the image, or that of `row` of
// the image's gradient from the outputs'. Nothing but that row is written, and all of it. Sums are taken in
// the order of rows, then columns, whatever the row; no accumulator takes more than 384 terms.
template <class T>
struct PoolKernels {
  // y = the largest element of each window, places = its t_y x.kernel + t_x, the first of equals; kernels of
  // at most 255 taps. NaN is larger than all, and the last of several is kept. places may be nullptr.
  void (*max)(const PoolShape& shape, Index row, const T* image, T* y, std::uint8_t* places);
  // dx = the sum of dy over the windows that have it in that place.
  void (*max_grad)(const PoolShape& shape, Index row, const T* dy, const std::uint8_t* places, T* dx);
  // y = the mean of each window: its sum, one rounding per term, divided.
  void (*avg)(const PoolShape& shape, Index row, const T* image, T* y);
  // dx = the sum of dy / divisor over the windows that hold it.
  void (*avg_grad)(const PoolShape& shape, Index row, const T* dy, T* dx);
};

// Normalization over the batch, on matrices of contiguous rows whose columns are channels (or those of some
// pixels side by side): each column has constants of its own. `act` is identity, relu or leaky_relu.
//   y = act((x - mean) scale + shift + residual)
template <class T>
struct NormalizeArgs {
  const T* x;
  const T* residual;  // nullptr: none
  T* y;
  const T *mean, *scale, *shift;  // by column
  Act act;
  T slope;
};

// sums = sum of d, products = sum of d (x - mean), over the rows, where d = dy act'(saved).
template <class T>
struct NormSumsArgs {
  const T *dy, *x, *saved;  // saved: for an activation
  const T* mean;            // by column
  T *sums, *products;
  Act act;
  T slope;
};

// dx = scale d - offset - slant (x - mean)
template <class T>
struct NormGradArgs {
  const T *dy, *x, *saved;
  T* dx;
  const T *mean, *scale, *offset, *slant;  // by column
  Act act;
  T slope;
};

// No sum takes more terms than there are rows, at most 384, and what it is added to.
template <class T>
struct NormKernels {
  // sums[j] = sum over rows of d = x - mean[j], squares[j] = sum of d^2
  void (*square_sums)(Index rows, Index cols, const T* x, const T* mean, T* sums, T* squares,
                      bool accumulate);
  void (*grad_sums)(const NormSumsArgs<T>& args, Index rows, Index cols, bool accumulate);
  void (*normalize)(const NormalizeArgs<T>& args, Index rows, Index cols);
  void (*grad)(const NormGradArgs<T>& args, Index rows, Index cols);
};

// Normalization of rows by statistics of their own, on contiguous matrices (rows, cols). stats (rows, 2):
// mean and 1 / sqrt(variance + eps). Row r has the factors gamma and terms beta of group r % groups, nullptr
// both for 1 and 0. `act` is identity, relu or leaky_relu.
//   y = act((x - mean) / sqrt(variance + eps) gamma + beta)
template <class T>
struct RowNormArgs {
  const T* x;
  T* y;
  T* stats;  // nullptr: not wanted
  const T *gamma, *beta;
  Index groups;
  double eps;
  Act act;
  T slope;
};

// dx, through the statistics too, from d = dy act'(saved).
template <class T>
struct RowNormGradArgs {
  const T *dy, *x, *saved, *stats, *gamma;
  T* dx;
  Index groups;
  Act act;
  T slope;
};

// Here a row is all groups of a sample, (groups, cols): sums[j] = sum of d over rows, products[j] = sum of
// d (x - mean) / sqrt(variance + eps).
template <class T>
struct RowNormSumsArgs {
  const T *dy, *x, *saved, *stats;
  T *sums, *products;
  Index groups;
  Act act;
  T slope;
};

// No accumulator takes more than 384 terms; `sums` takes at most as many rows.
template <class T>
struct RowNormKernels {
  void (*normalize)(const RowNormArgs<T>& args, Index rows, Index cols);
  void (*grad)(const RowNormGradArgs<T>& args, Index rows, Index cols);
  void (*sums)(const RowNormSumsArgs<T>& args, Index rows, Index cols);
};

template <class T>
struct Kernels {
  GemmKernels<T> gemm;
  SkinnyKernels<T> skinny;
  ElementKernels<T> element;
  DepthwiseKernels<T> depthwise;
  WinogradKernels<T> winograd2, winograd4;  // m = 2 and 4
  PoolKernels<T> pool;
  NormKernels<T> norm;
  RowNormKernels<T> row_norm;
  // Runs independent FMA chains in registers; returns the floating-point operations done. For the FMA
  // ceiling.
  double (*fma_chains)(Index iterations);
  Bf16Kernels bf16;  // for T = float
};

struct IsaTable {
  const char* name;
  Kernels<float> f32;
  Kernels<double> f64;
};

}  // namespace gemmule::cpu
