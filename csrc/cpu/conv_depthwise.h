// Convolutions of every channel with a filter of its own: the image's way forward, or its gradient's, and the
// filters' gradient. Nothing is padded: at the border an output has fewer taps.
#pragma once
#include "cpu/ahead.h"
#include "cpu/conv_parts.h"

namespace gemmule::cpu {

// Rows of outputs that are made of one panel of channels before the next: 10 rows of 28 pixels and 32
// channels take 36 KB of L1.
inline constexpr Index depthwise_rows = 8;

inline constexpr Index most_depthwise_outputs = 384;  // of one sum in a register

// Both windows of three that move by one, with one of padding at most.
inline bool moves_by_threes(const Window& window, Index out_height, Index out_width, Index height,
                            Index width) {
  const auto fits = [](const WindowAxis& axis, Index outputs, Index size) {
    return axis.kernel == 3 && axis.stride == 1 && axis.dilation == 1 && axis.before >= 0 &&
           axis.before <= 1 && outputs + 1 - axis.before <= size;
  };
  return fits(window.y, out_height, height) && fits(window.x, out_width, width);
}
// The rows of the image under `rows` rows of outputs from row i on, from the first window's first column on.
// Those outside are nullptr.
template <class Args, class T>
void lie_under(Args& args, const Window& window, Index i, const T* image, Index height, Index width,
               Index channels) {
  for (Index r = 0; r < args.rows + 2; ++r) {
    const Index y = i - window.y.before + r;
    args.x[r] = y >= 0 && y < height ? image + (y * width - window.x.before) * channels : nullptr;
  }
}

template <class T>
class DepthwiseSlider {
 public:
  DepthwiseSlider(const Kernels<T>& kernels, const Sliding<T>& call)
      : kernels_(kernels),
        call_(call),
        width_(panel_width(kernels.gemm, call.channels)),
        inner_(whole_windows(call.window.x, call.out_width, call.width)),
        by_threes_(moves_by_threes(call.window, call.out_height, call.out_width, call.height, call.width)) {}

  void make(Span rows, const T* image, T* out) const {
    if (by_threes_) return make_by_threes(rows, image, out);
    const Index blocks = pieces(rows.size(), depthwise_rows);
    for (Index block = 0; block < blocks; ++block) {
      const Index begin = cut(rows.size(), blocks, block), end = cut(rows.size(), blocks, block + 1);
      make_by_panels({rows.begin + begin, rows.begin + end}, image, out + begin * call_.row_step);
    }
  }

 private:
  // Two rows at a time: of the four rows of the image under them two are in L1 or L2.
  void make_by_threes(Span rows, const T* image, T* out) const {
    const WindowAxis& across = call_.window.x;
    DepthwiseRowsArgs<T> args;
    args.before = across.before == 0;
    args.after = call_.out_width + 2 - across.before <= call_.width;
    args.outputs = call_.out_width;
    args.x_step = call_.channels;
    args.out_step = call_.pixel_step;
    args.out_row = call_.row_step;
    args.channels = call_.channels;
    args.weight = call_.panels;
    args.width = width_;
    args.bias = call_.bias;
    args.act = acts_in_registers(call_) ? call_.act : Act::identity;
    args.slope = call_.slope;
    for (Index i = rows.begin; i < rows.end; i += args.rows) {
      args.rows = std::min<Index>(2, rows.end - i);
      lie_under(args, call_.window, i, image, call_.height, call_.width, call_.channels);
      args.out = out + (i - rows.begin) * call_.row_step;
      kernels_.depthwise.rows_of_three(args);
    }
  }

  // Panel by panel: what is under a panel of theirs stays in L1 from row to row, and the image's next rows
  // are fetched meanwhile, in whole.
  void make_by_panels(Span rows, const T* image, T* out) const {
    const WindowAxis &down = call_.window.y, &across = call_.window.x;
    const Index line = call_.width * call_.channels;
    DepthwiseArgs<T> args;
    args.tap_row = down.dilation * line;
    args.tap_col = across.dilation * call_.channels;
    args.x_step = across.stride * call_.channels;
    args.out_step = call_.pixel_step;
    args.width = width_;
    args.weight_row = across.kernel * args.width;
    args.act = acts_in_registers(call_) ? call_.act : Act::identity;
    args.slope = call_.slope;
    Ahead<T> ahead = rows_behind(rows, image);
    for (Index c = 0; c < call_.channels; c += args.width) {
      args.channels = std::min(args.width, call_.channels - c);
      args.bias = call_.bias ? call_.bias + c : nullptr;
      for (Index i = rows.begin; i < rows.end; ++i) {
        ahead.fetch();
        const Span taps_y = taps_inside(down, i, call_.height);
        const T* const row = image + (i * down.stride - down.before + taps_y.begin * down.dilation) * line;
        const T* const weight = call_.panels + c * call_.window.taps() + taps_y.begin * args.weight_row;
        args.taps_y = taps_y.size();
        for (Index o = 0; o < call_.out_width; o += args.outputs) {
          const Span taps = taps_inside(across, o, call_.width);
          args.outputs = o == inner_.begin && inner_.size() > 0 ? inner_.size() : 1;
          args.taps_x = taps.size();
          args.weight = weight + taps.begin * args.width;
          args.x =
              row + (o * across.stride - across.before + taps.begin * across.dilation) * call_.channels + c;
          args.out = out + (i - rows.begin) * call_.row_step + o * call_.pixel_step + c;
          kernels_.depthwise.forward[pieces(args.channels, kernels_.gemm.lanes) - 1](args);
        }
      }
    }
  }

  // The rows of the image that as many rows of outputs more will read.
  Ahead<T> rows_behind(Span rows, const T* image) const {
    const WindowAxis& down = call_.window.y;
    const Index line = call_.width * call_.channels;
    const Index last = (rows.end - 1) * down.stride - down.before + down.extent();
    Ahead<T> ahead;
    ahead.first_row = image + last * line;
    ahead.step = line;
    ahead.rows = std::clamp<Index>(call_.height - last, 0, rows.size() * down.stride);
    ahead.lines = pieces(line, in_a_line<T>);
    ahead.share = pieces(ahead.rows * ahead.lines, rows.size() * pieces(call_.channels, width_));
    return ahead;
  }

  const Kernels<T>& kernels_;
  const Sliding<T>& call_;
  const Index width_;  // of a panel of channels
  const Span inner_;   // outputs along a row whose windows lie inside the image
  const bool by_threes_;
};

// dW in panels, (taps, channels). These sums are few: parts of all rows of outputs have sums of their own.
template <class T>
class DepthwiseGradient {
 public:
  DepthwiseGradient(const Kernels<T>& kernels, const ConvWeights<T>& call)
      : kernels_(kernels),
        call_(call),
        s_(call.sizes),
        width_(panel_width(kernels.gemm, s_.channels)),
        inner_(whole_windows(s_.window.x, s_.out_width(), s_.width)),
        by_threes_(s_.out_width() > 1 &&
                   moves_by_threes(s_.window, s_.out_height(), s_.out_width(), s_.height, s_.width)) {}

  static Index parts(const ConvSizes& s) { return std::clamp<Index>(s.images * s.out_height(), 1, 16); }

  void run(const Team& team, T* sums, Index size) {
    const Index count = parts(s_), rows = s_.images * s_.out_height();
    team.deal(count, [&](Index part) {
      T* mine = sums + part * size;
      if (part > 0 || !call_.accumulate) std::fill_n(mine, size, T(0));
      const Index end = cut(rows, count, part + 1);
      for (Index row = cut(rows, count, part), made; row < end; row += made) {
        const Index image = row / s_.out_height(), i = row % s_.out_height();
        made = by_threes_ ? std::min<Index>({2, end - row, s_.out_height() - i}) : 1;
        if (by_threes_)
          add_rows_of_three(image, {i, i + made}, mine);
        else
          add_row(image, i, mine);
      }
    });
  }

 private:
  void add_rows_of_three(Index image, Span rows, T* sums) const {
    const WindowAxis& across = s_.window.x;
    DepthwiseRowsGradArgs<T> args;
    args.rows = rows.size();
    args.before = across.before == 0;
    args.after = s_.out_width() + 2 - across.before <= s_.width;
    args.outputs = s_.out_width();
    args.x_step = args.dz_step = args.channels = s_.channels;
    args.dz_row = s_.out_width() * s_.channels;
    args.dz = call_.dz + (image * s_.out_height() + rows.begin) * args.dz_row;
    args.sums = sums;
    args.width = width_;
    lie_under(args, s_.window, rows.begin, call_.x + image * s_.height * s_.width * s_.channels, s_.height,
              s_.width, s_.channels);
    kernels_.depthwise.weights_of_three(args);
  }

  void add_row(Index image, Index i, T* sums) const {
    const WindowAxis &down = s_.window.y, &across = s_.window.x;
    const Span rows = taps_inside(down, i, s_.height);
    if (rows.size() <= 0) return;
    const Index y = i * down.stride - down.before + rows.begin * down.dilation, outputs = s_.out_width();
    const Index taps = s_.depth();
    DepthwiseGradArgs<T> args;
    args.rows = rows.size();
    args.tap_row = down.dilation * s_.width * s_.channels;
    args.sums_row = across.kernel * width_;
    args.tap_col = across.dilation * s_.channels;
    args.x_step = across.stride * s_.channels;
    args.dz_step = s_.filters;
    args.width = width_;
    for (Index c = 0; c < s_.channels; c += width_) {
      args.channels = std::min(width_, s_.channels - c);
      const T* const x = call_.x + (image * s_.height + y) * s_.width * s_.channels + c;
      const T* const dz = call_.dz + (image * s_.out_height() + i) * outputs * s_.filters + c;
      T* const first = sums + c * taps + rows.begin * args.sums_row;
      for (Index o = 0, count; o < outputs; o += count) {
        const Span inside = taps_inside(across, o, s_.width);
        count = o >= inner_.begin && o < inner_.end ? std::min(most_depthwise_outputs, inner_.end - o) : 1;
        if (inside.size() <= 0) continue;
        args.outputs = count;
        args.taps = inside.size();
        args.x = x + (o * across.stride - across.before + inside.begin * across.dilation) * s_.channels;
        args.dz = dz + o * s_.filters;
        args.sums = first + inside.begin * width_;
        kernels_.depthwise.weights[pieces(args.channels, kernels_.gemm.lanes) - 1](args);
      }
    }
  }

  const Kernels<T>& kernels_;
  const ConvWeights<T>& call_;
  const ConvSizes& s_;
  const Index width_;  // of a panel
  const Span inner_;   // outputs along a row with all taps
  const bool by_threes_;
};

}  // namespace gemmule::cpu
