// The loops around the micro-kernel of convolutions.
#pragma once
#include "cpu/ahead.h"
#include "cpu/conv_parts.h"
#include "cpu/gemm.h"

namespace gemmule::cpu {

// The rows of an image that a member has at hand, padding included: half of a 512 KB L2, the rest is for the
// filters that stream through.
inline constexpr Index band_bytes = 256 * 1024;

// Rows of outputs that are made of one panel of channels before the next: 10 rows of 28 pixels and 32
// channels take 36 KB of L1.
inline constexpr Index depthwise_rows = 8;

template <class T>
Index aligned(Index elements) {
  return round_up(elements, 64 / static_cast<Index>(sizeof(T)));
}

// out[n, i, j, :] = sum over the window's elements at (i, j) times filters in panels. An image's gradient is
// made of these too, then with flipped filters and outputs that lie some pixels apart.
template <class T>
struct Sliding {
  const T* x;
  Index images, height, width, channels, groups;
  bool depthwise;  // then the panels are of (taps, channels)
  Window window;   // `before` may be negative: `after` is not read
  const T* panels;
  Index filters;  // of all groups
  T* out;
  Index out_height, out_width;
  Index image_step, row_step, pixel_step;  // of out
  const T* bias;
  Act act;
  T slope;
  const T* saved;     // where out lies in it, act' is taken
  const T* residual;  // like out, added to it
};

template <class T>
class Slider {
 public:
  Slider(const Kernels<T>& kernels, const Sliding<T>& call, T* buffer)
      : kernels_(kernels), k_(kernels.gemm), call_(call), buffer_(buffer) {
    filters_ = call.filters / call.groups;
    channels_ = call.channels / call.groups;
    depth_ = call.window.taps() * channels_;
    width_ = panel_width(k_, filters_);
    makes_two_ = k_.two_panels && width_ == k_.vectors * k_.lanes;
    bands_ = pieces(call.out_height, band_rows(call));
    flat_ = is_flat(k_, call);
    width_of_channels_ = panel_width(k_, call.channels);
    if (call.depthwise) inner_ = whole_windows(call.window.x, call.out_width, call.width);
    list_ = reinterpret_cast<const T**>(buffer + buffer_size(call));
  }

  // Output rows whose windows fit a band; one at least.
  static Index band_rows(const Sliding<T>& call) {
    const Index row = covered(call.window.x, call.out_width) * call.channels * static_cast<Index>(sizeof(T));
    const Index rows = (band_bytes / std::max<Index>(row, 1) - call.window.y.extent()) / call.window.y.stride;
    return std::clamp<Index>(rows + 1, 1, std::max<Index>(call.out_height, 1));
  }
  static Index buffer_size(const Sliding<T>& call) {
    if (call.depthwise) return 0;
    const Index row = checked_mul(covered(call.window.x, call.out_width), call.channels);
    return aligned<T>(checked_mul(covered(call.window.y, band_rows(call)), row));
  }
  // Narrow images: tiles go on from one row of outputs to the next, their rows of A listed. That takes each
  // row of the window for itself, so it must make fewer sums in registers: 14 x 14 pixels of 256 channels are
  // 33 tiles of 6, row by row 42 of 5 and 4.
  static bool is_flat(const GemmKernels<T>& k, const Sliding<T>& call) {
    const Index run = call.window.x.kernel * call.channels;
    const bool fits = call.groups == 1 && call.window.x.dilation == 1 &&
                      call.row_step == call.out_width * call.pixel_step && call.out_width > 0;
    return fits && pieces(call.out_height * call.out_width, k.rows) * call.window.y.kernel *
                           pieces(run, k.depth_block) <
                       call.out_height * pieces(call.out_width, k.rows) *
                           pieces(call.window.y.kernel * run, k.depth_block);
  }
  static Index workspace_size(const GemmKernels<T>& k, const Sliding<T>& call) {
    const Index list = is_flat(k, call) ? band_rows(call) * call.out_width : 0;
    return checked_add(buffer_size(call), list * static_cast<Index>(sizeof(void*) / sizeof(T)));
  }

  void run(const Team& team) {
    if (call_.out_height <= 0 || call_.out_width <= 0 || call_.filters <= 0) return;
    team.deal(call_.images * bands_, [&](Index item) {
      const Index image = item / bands_, band = item % bands_;
      make({cut(call_.out_height, bands_, band), cut(call_.out_height, bands_, band + 1)}, image);
    });
  }

 private:
  void make(Span rows, Index image) {
    const T* const x = call_.x + image * call_.height * call_.width * call_.channels;
    T* const out = call_.out + image * call_.image_step + rows.begin * call_.row_step;
    if (call_.depthwise)
      make_depthwise(rows, x, out);
    else
      make_panels(rows, x, out);
    finish(rows.size(), out);
  }

  void make_panels(Span rows, const T* x, T* out) {
    const Band<T> band = band_of(x, call_.height, call_.width, call_.channels, call_.window, rows,
                                 {0, call_.out_width}, buffer_);
    const Strands strands(call_.window, call_.channels, channels_, band.pitch, flat_);
    if (flat_) list_windows(band, rows.size());
    for (Index g = 0; g < call_.groups; ++g)
      for (Index j = 0, cols; j < filters_; j += cols) {
        cols = makes_two_ && filters_ - j >= 2 * width_ ? 2 * width_ : std::min(width_, filters_ - j);
        make_panel(band, strands, rows.size(), g, {j, j + cols}, out + g * filters_ + j);
      }
  }

  // A panel of filters, or two: all depths of it while its outputs are in cache.
  void make_panel(const Band<T>& band, const Strands& strands, Index rows, Index group, Span panel, T* out) {
    const Index j = panel.begin, cols = panel.size(), vectors = pieces(cols, k_.lanes);
    TileArgs<T> tile;
    tile.alpha = 1;
    tile.slope = call_.slope;
    tile.cols = cols;
    tile.b_step = width_;
    tile.b_next = width_ * depth_;
    tile.a_row = call_.window.x.stride * call_.channels;
    tile.a_step = 1;
    tile.c_row = call_.pixel_step;
    const T* const filters = call_.panels + group * panel_elements(k_, depth_, filters_) + j * depth_;
    const T* const origin = band.data + group * channels_;
    for (Index s = 0; s < strands.count(); ++s) {
      const Strand strand = strands[s];
      const Index length = strand.end - strand.begin,
                  blocks = std::max<Index>(1, pieces(length, k_.depth_block));
      for (Index block = 0; block < blocks; ++block) {
        const Index begin = cut(length, blocks, block), end = cut(length, blocks, block + 1);
        const bool first = s == 0 && block == 0, last = s + 1 == strands.count() && block + 1 == blocks;
        tile.depth = end - begin;
        tile.a_run = strand.run - begin % strand.run;
        tile.a_chunk = strand.run;
        tile.a_jump = strand.apart;
        tile.b = filters + (strand.begin + begin) * width_;
        tile.beta = first ? T(0) : T(1);
        tile.bias = last && call_.bias ? call_.bias + group * filters_ + j : nullptr;
        tile.act = last && in_registers() ? call_.act : Act::identity;
        if (flat_) {
          tile.a_first = strand.offset + begin;
          make_tiles(tile, k_.kernel_listed_rows, rows * call_.out_width, vectors, nullptr, list_, out);
          continue;
        }
        for (Index i = 0; i < rows; ++i)
          make_tiles(tile, k_.kernel_rows, call_.out_width, vectors,
                     origin + place_in(strand, begin) + i * call_.window.y.stride * band.pitch, nullptr,
                     out + i * call_.row_step);
      }
    }
  }

  // Some rows, panel by panel: what is under a panel of theirs stays in L1 from row to row, and the image's
  // next rows are fetched meanwhile, in whole. Nothing is padded: at the border an output has fewer taps.
  void make_depthwise(Span rows, const T* image, T* out) const {
    const Index blocks = pieces(rows.size(), depthwise_rows);
    for (Index block = 0; block < blocks; ++block) {
      const Index begin = cut(rows.size(), blocks, block), end = cut(rows.size(), blocks, block + 1);
      make_depthwise_rows({rows.begin + begin, rows.begin + end}, image, out + begin * call_.row_step);
    }
  }

  void make_depthwise_rows(Span rows, const T* image, T* out) const {
    const WindowAxis &down = call_.window.y, &across = call_.window.x;
    const Index line = call_.width * call_.channels;
    DepthwiseArgs<T> args;
    args.tap_row = down.dilation * line;
    args.tap_col = across.dilation * call_.channels;
    args.x_step = across.stride * call_.channels;
    args.out_step = call_.pixel_step;
    args.width = width_of_channels_;
    args.weight_row = across.kernel * args.width;
    args.act = in_registers() ? call_.act : Act::identity;
    args.slope = call_.slope;
    Ahead<T> ahead = rows_behind(rows, image);
    for (Index c = 0; c < call_.channels; c += args.width) {
      args.channels = std::min(args.width, call_.channels - c);
      args.bias = call_.bias ? call_.bias + c : nullptr;
      for (Index i = rows.begin; i < rows.end; ++i) {
        ahead.fetch();
        const Span taps_y = taps_inside(down, i, call_.height);
        const T* const row = image + (i * down.stride - down.before + taps_y.begin * down.dilation) * line;
        const T* const weight = call_.panels + c * depth_ + taps_y.begin * args.weight_row;
        args.taps_y = taps_y.size();
        for (Index o = 0; o < call_.out_width; o += args.outputs) {
          const Span taps = taps_inside(across, o, call_.width);
          args.outputs = o == inner_.begin && inner_.size() > 0 ? inner_.size() : 1;
          args.taps_x = taps.size();
          args.weight = weight + taps.begin * args.width;
          args.x =
              row + (o * across.stride - across.before + taps.begin * across.dilation) * call_.channels + c;
          args.out = out + (i - rows.begin) * call_.row_step + o * call_.pixel_step + c;
          kernels_.depthwise.forward[pieces(args.channels, k_.lanes) - 1](args);
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
    ahead.lines = pieces(line, Ahead<T>::line);
    ahead.share = pieces(ahead.rows * ahead.lines, rows.size() * pieces(call_.channels, width_of_channels_));
    return ahead;
  }

  void list_windows(const Band<T>& band, Index rows) const {
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < call_.out_width; ++j)
        list_[i * call_.out_width + j] =
            band.data + i * call_.window.y.stride * band.pitch + j * call_.window.x.stride * call_.channels;
  }

  // Outputs one behind the other, in tiles whose heights differ by one at most.
  void make_tiles(TileArgs<T>& tile, const TileKernel<T> (*kernel)[max_tile_vectors], Index outputs,
                  Index vectors, const T* a, const T* const* list, T* c) const {
    const Index tiles = pieces(outputs, k_.rows), higher = outputs % tiles;
    for (Index pass = 0; pass < 2; ++pass) {
      const Index height = outputs / tiles + (pass == 0), count = pass == 0 ? higher : tiles - higher;
      if (count == 0) continue;
      tile.tiles = count;
      tile.a = a;
      tile.a_next = height * tile.a_row;
      tile.a_list = list;
      tile.c = c;
      kernel[height - 1][vectors - 1](tile);
      if (list)
        list += count * height;
      else
        a += count * tile.a_next;
      c += count * height * tile.c_row;
    }
  }

  bool in_registers() const {
    return !call_.saved && !call_.residual && (call_.act == Act::relu || call_.act == Act::leaky_relu);
  }

  // The residual, the activations that cost more, or the derivative, over what was just made.
  void finish(Index rows, T* out) const {
    if (in_registers() || (call_.act == Act::identity && !call_.residual)) return;
    const bool dense = call_.pixel_step == call_.filters;
    const Index stretch = (dense ? call_.out_width : 1) * call_.filters;
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < call_.out_width; j += dense ? call_.out_width : 1) {
        T* at = out + i * call_.row_step + j * call_.pixel_step;
        if (call_.residual) kernels_.element.add(stretch, at, call_.residual + (at - call_.out), at);
        if (call_.saved)
          kernels_.element.activation_grad(call_.act, call_.slope, stretch, at,
                                           call_.saved + (at - call_.out), at);
        else if (call_.act != Act::identity)
          kernels_.element.activation(call_.act, call_.slope, stretch, at, at);
      }
  }

  const Kernels<T>& kernels_;
  const GemmKernels<T>& k_;
  const Sliding<T>& call_;
  T* buffer_;
  Index filters_, channels_, depth_;  // of a group
  Index width_;                       // of a panel
  bool makes_two_;                    // panels at once
  Index width_of_channels_;           // of a panel of a depthwise call
  Span inner_{0, 0};                  // outputs along a row whose windows lie inside the image
  Index bands_;
  bool flat_;
  const T** list_;  // of a flat band: where each output's window begins
};

}  // namespace gemmule::cpu
