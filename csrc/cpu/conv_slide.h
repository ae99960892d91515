// The loops around the micro-kernel of convolutions.
#pragma once
#include "cpu/conv_depthwise.h"
#include "cpu/conv_inside.h"
#include "cpu/gemm.h"

namespace gemmule::cpu {

// The rows of an image that a member has at hand, padding included: half of a 512 KB L2, the rest is for the
// filters that stream through.
inline constexpr Index band_bytes = 256 * 1024;

// Images of few outputs go together, as filters of megabytes pass by for each group of them: 256 outputs, in
// half of an L2 of 2 MB.
inline constexpr Index outputs_together = 256, together_bytes = 1024 * 1024;

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
    listed_ = is_listed(k_, call);
    together_ = images_together(k_, call);
    if (!listed_) return;
    windows_ = reinterpret_cast<const T**>(buffer);
    outputs_ = reinterpret_cast<T**>(buffer) + listed_outputs(call) * together_;
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
    return whole_lines<T>(checked_mul(covered(call.window.y, band_rows(call)), row));
  }
  // Outputs are listed by the taps that they have inside the image, and what lies outside takes no sums. That
  // takes each row of the window for itself: 7 x 7 pixels have 361 taps of 441, 56 x 56 nearly all.
  static bool is_listed(const GemmKernels<T>& k, const Sliding<T>& call) {
    const WindowAxis &down = call.window.y, &across = call.window.x;
    if (call.groups != 1 || call.depthwise || across.dilation != 1 || call.out_height <= 0) return false;
    const Stretches stretches(across, call.out_width, call.width);
    if (!stretches.complete()) return false;
    const Index images = most_together(call);
    Index listed = 0;
    const auto add = [&](Index, Span inside, Span) {
      for (const Stretch& s : stretches)
        listed += work_of_tiles(k, images * inside.size() * s.outputs.size(), s.taps.size() * call.channels);
    };
    if (!TapRows(down, call.out_height, call.height).for_each(add)) return false;
    const Index depth = call.window.taps() * call.channels;
    return listed < images * call.out_height * work_of_tiles(k, call.out_width, depth);
  }
  // Fewer images may go another way than so many.
  static Index workspace_size(const GemmKernels<T>&, const Sliding<T>& call) {
    if (call.depthwise || call.groups != 1) return buffer_size(call);
    const Index outputs = checked_mul(most_together(call), listed_outputs(call));
    return std::max(buffer_size(call),
                    whole_lines<T>(checked_mul(outputs, static_cast<Index>(2 * sizeof(void*) / sizeof(T)))));
  }

  void run(const Team& team) {
    if (call_.out_height <= 0 || call_.out_width <= 0 || call_.filters <= 0) return;
    const Index groups = pieces(call_.images, together_);
    team.deal(groups * bands_, [&](Index item) {
      const Index group = item / bands_, band = item % bands_;
      make({cut(call_.out_height, bands_, band), cut(call_.out_height, bands_, band + 1)},
           {cut(call_.images, groups, group), cut(call_.images, groups, group + 1)});
    });
  }

 private:
  // Images of a listed call that go together, where each is made in whole: so few that 8 members are busy.
  static Index most_together(const Sliding<T>& call) {
    if (band_rows(call) < call.out_height) return 1;
    const Index image = call.height * call.width * call.channels * static_cast<Index>(sizeof(T));
    const Index most = std::min(outputs_together / std::max<Index>(1, call.out_height * call.out_width),
                                together_bytes / std::max<Index>(1, image));
    return std::clamp<Index>(most, 1, std::max<Index>(1, call.images / 8));
  }
  static Index images_together(const GemmKernels<T>& k, const Sliding<T>& call) {
    return is_listed(k, call) ? most_together(call) : 1;
  }
  static Index listed_outputs(const Sliding<T>& call) { return checked_mul(band_rows(call), call.out_width); }

  void make(Span rows, Span images) {
    const T* const x = call_.x + images.begin * image_elements();
    T* const out = call_.out + images.begin * call_.image_step + rows.begin * call_.row_step;
    if (call_.depthwise)
      DepthwiseSlider<T>(kernels_, call_).make(rows, x, out);
    else if (listed_)
      make_listed(rows, images.size(), x, out);
    else
      make_rows(rows, x, out);
    for (Index n = 0; n < images.size(); ++n) finish(rows.size(), out + n * call_.image_step);
  }

  Index image_elements() const { return call_.height * call_.width * call_.channels; }

  void make_rows(Span rows, const T* x, T* out) {
    const Band<T> band = band_of(x, call_.height, call_.width, call_.channels, call_.window, rows,
                                 {0, call_.out_width}, buffer_);
    const Strands strands(call_.window, call_.channels, channels_, band.pitch);
    for (Index g = 0; g < call_.groups; ++g)
      for_each_panel([&](Span panel) {
        make_panel(band, strands, rows.size(), g, panel, out + g * filters_ + panel.begin);
      });
  }

  template <class Body>
  void for_each_panel(const Body& body) const {
    for (Index j = 0, cols; j < filters_; j += cols) {
      cols = makes_two_ && filters_ - j >= 2 * width_ ? 2 * width_ : std::min(width_, filters_ - j);
      body(Span{j, j + cols});
    }
  }

  // What tiles of a panel have in common, or of two.
  TileArgs<T> tile_of(Span panel) const {
    TileArgs<T> tile;
    tile.alpha = 1;
    tile.slope = call_.slope;
    tile.cols = panel.size();
    tile.b_step = width_;
    tile.b_next = width_ * depth_;
    tile.a_row = call_.window.x.stride * call_.channels;
    tile.a_step = 1;
    tile.c_row = call_.pixel_step;
    tile.a_list = nullptr;
    return tile;
  }

  // By rows of the window, each added to the outputs that have it inside the image.
  void make_listed(Span rows, Index images, const T* x, T* out) const {
    const TapRows taps(call_.window.y, call_.out_height, call_.height);
    const Stretches stretches(call_.window.x, call_.out_width, call_.width);
    list(stretches, taps.first(), rows, images, x, out);
    for_each_panel([&](Span panel) {
      Listed part{tile_of(panel), stretches, rows, images, panel};
      part.tile.c_first = panel.begin;
      Span made{0, 0};
      taps.for_each([&](Index r, Span inside, Span before) {
        part.tap_row = r;
        part.from_first = r - taps.first();
        add_taps(part, common(inside, {0, before.begin}), true);
        add_taps(part, common(inside, before), false);
        add_taps(part, common(inside, {std::max(inside.begin, before.end), call_.out_height}), true);
        made = {std::min(inside.begin, before.begin), std::max(inside.end, before.end)};
      });
      part.tap_row = -1;
      add_taps(part, {0, made.begin}, true);
      add_taps(part, {made.end, call_.out_height}, true);
    });
  }

  struct Listed {
    TileArgs<T> tile;
    const Stretches& stretches;
    Span rows;  // of the list, as are `images`
    Index images;
    Span panel;
    Index tap_row = -1, from_first = 0;  // -1: none
  };

  // One row of taps, to outputs of these rows of the image that have nothing yet (`first`), or something.
  void add_taps(Listed& part, Span outputs, bool first) const {
    const Span made = common(outputs, part.rows);
    if (made.size() == 0) return;
    const Index channels = call_.channels, row = call_.window.x.kernel * channels;
    TileArgs<T>& tile = part.tile;
    for (const Stretch& s : part.stretches) {
      const Index cols = s.outputs.size(), depth = part.tap_row < 0 ? 0 : s.taps.size() * channels;
      const Index from =
          (s.outputs.begin * part.rows.size() + cols * (made.begin - part.rows.begin)) * part.images;
      const Index blocks = std::max<Index>(1, pieces(depth, k_.depth_block));
      for (Index block = 0; block < blocks; ++block) {
        const Index begin = cut(depth, blocks, block);
        tile.depth = cut(depth, blocks, block + 1) - begin;
        tile.a_first = part.from_first * call_.window.y.dilation * call_.width * channels + begin;
        tile.b = call_.panels + part.panel.begin * depth_ +
                 (std::max<Index>(part.tap_row, 0) * row + s.taps.begin * channels + begin) * width_;
        tile.beta = first && block == 0 ? T(0) : T(1);
        tile.bias = first && block == 0 && call_.bias ? call_.bias + part.panel.begin : nullptr;
        tile.act = block + 1 == blocks && in_registers() ? call_.act : Act::identity;
        make_tiles(tile, k_.kernel_listed_rows, part.images * made.size() * cols,
                   pieces(part.panel.size(), k_.lanes), from, nullptr, nullptr);
      }
    }
  }

  // Stretch by stretch, row by row, image by image: where an output lies, and its window in a row of taps
  // that may lie outside the image.
  void list(const Stretches& stretches, Index tap_row, Span rows, Index images, const T* x, T* out) const {
    const WindowAxis &down = call_.window.y, &across = call_.window.x;
    Index at = 0;
    for (const Stretch& s : stretches)
      for (Index i = rows.begin; i < rows.end; ++i)
        for (Index n = 0; n < images; ++n) {
          const Index y = i * down.stride - down.before + tap_row * down.dilation;
          const T* const line = x + n * image_elements() + y * call_.width * call_.channels;
          T* const to = out + n * call_.image_step + (i - rows.begin) * call_.row_step;
          for (Index o = s.outputs.begin; o < s.outputs.end; ++o, ++at) {
            windows_[at] = line + (o * across.stride - across.before + s.taps.begin) * call_.channels;
            outputs_[at] = to + o * call_.pixel_step;
          }
        }
  }

  // A panel of filters, or two: all depths of it while its outputs are in cache.
  void make_panel(const Band<T>& band, const Strands& strands, Index rows, Index group, Span panel,
                  T* out) const {
    const Index j = panel.begin, vectors = pieces(panel.size(), k_.lanes);
    TileArgs<T> tile = tile_of(panel);
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
        for (Index i = 0; i < rows; ++i)
          make_tiles(tile, k_.kernel_rows, call_.out_width, vectors, 0,
                     origin + place_in(strand, begin) + i * call_.window.y.stride * band.pitch,
                     out + i * call_.row_step);
      }
    }
  }

  // Outputs one behind the other, or those of the list `from` one on, in tiles whose heights differ by one at
  // most.
  void make_tiles(TileArgs<T>& tile, const TileKernel<T> (*kernel)[max_tile_vectors], Index outputs,
                  Index vectors, Index from, const T* a, T* c) const {
    const Index tiles = pieces(outputs, k_.rows), higher = outputs % tiles;
    for (Index pass = 0; pass < 2; ++pass) {
      const Index height = outputs / tiles + (pass == 0), count = pass == 0 ? higher : tiles - higher;
      if (count == 0) continue;
      tile.tiles = count;
      tile.a = a;
      tile.a_next = height * tile.a_row;
      tile.c = c;
      if (listed_) {
        tile.a_list = windows_ + from;
        tile.c_list = outputs_ + from;
      }
      kernel[height - 1][vectors - 1](tile);
      from += count * height;
      if (listed_) continue;
      a += count * tile.a_next;
      c += count * height * tile.c_row;
    }
  }

  // Rows of the window that some outputs lack come after the others: then nothing is the last for all.
  bool in_registers() const { return acts_in_registers(call_) && !(listed_ && call_.window.y.kernel > 1); }

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
  Index bands_;
  bool listed_;
  Index together_;               // images
  const T** windows_ = nullptr;  // of a listed call, with its outputs: `list`
  T** outputs_ = nullptr;
};

}  // namespace gemmule::cpu
