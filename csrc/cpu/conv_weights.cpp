// dW = dz^T x, where x is what each window covers: a tile has some elements of a window as its rows, filters
// as its columns, and sums over pixels.
#include "cpu/conv_depthwise.h"
#include "cpu/conv_inside.h"
#include "cpu/gemm.h"
#include "cpu/panels.h"
#include "cpu/winograd.h"

namespace gemmule::cpu {
namespace {

template <class T>
Gemm<T> as_gemm(const ConvWeights<T>& call) {
  const ConvSizes& s = call.sizes;
  const Index pixels = s.images * s.height * s.width;
  Gemm<T> g;
  g.a = {call.dz, s.filters, pixels, 1, s.filters};
  g.b = {call.x, pixels, s.channels, s.channels, 1};
  g.c = call.dweight;
  g.c_row = s.channels;
  g.beta = call.accumulate ? T(1) : T(0);
  return g;
}

template <class T>
WinogradWeights<T> as_winograd(const ConvWeights<T>& call, ConvPath path) {
  const ConvSizes& s = call.sizes;
  WinogradWeights<T> w{};
  w.outputs = path == ConvPath::winograd4 ? 4 : 2;
  w.x = call.x;
  w.images = s.images;
  w.height = s.height;
  w.width = s.width;
  w.channels = s.channels;
  w.before_y = s.window.y.before;
  w.before_x = s.window.x.before;
  w.dz = call.dz;
  w.out_height = s.out_height();
  w.out_width = s.out_width();
  w.filters = s.filters;
  w.accumulate = call.accumulate;
  return w;
}

// Elements of dW in panels: one set of sums.
template <class T>
Index sums_size(const GemmKernels<T>& k, const ConvSizes& s) {
  const Index panels = is_depthwise(s)
                           ? panel_elements(k, s.depth(), s.filters)
                           : checked_mul(s.groups, panel_elements(k, s.depth(), s.group_filters()));
  return whole_lines<T>(panels);
}

// Pixels of z that one sum in a register takes: whole rows of it, or a part of one.
struct PixelBlocks {
  PixelBlocks(const ConvSizes& s, Index most) : height(s.out_height()), width(s.out_width()) {
    across = std::max<Index>(1, pieces(width, most));
    down = across > 1 ? height : pieces(height, std::max<Index>(1, most / std::max<Index>(width, 1)));
  }
  Span rows(Index i) const { return {cut(height, down, i), cut(height, down, i + 1)}; }
  Span cols(Index j) const { return {cut(width, across, j), cut(width, across, j + 1)}; }
  // Elements of the image under the largest of them.
  Index covered_elements(const ConvSizes& s) const {
    return checked_mul(checked_mul(covered(s.window.y, pieces(height, std::max<Index>(down, 1))),
                                   covered(s.window.x, pieces(width, across))),
                       s.channels);
  }

  Index height, width;
  Index down, across;  // how many
};

// Where a sum's terms come from. A window's element by element: `by_taps`, each tap's channels by themselves,
// over the outputs that have the tap inside the image; else the rows of its taps in one piece, over all, and
// the image has zeros around it. Few channels leave tiles of few rows.
template <class T>
bool sums_by_taps(const GemmKernels<T>& k, const ConvSizes& s, const PixelBlocks& blocks) {
  const WindowAxis &down = s.window.y, &across = s.window.x;
  if (s.groups > 1 || across.dilation > 1) return true;
  const auto pixels = [&](Index high, Index wide) { return high * wide / (blocks.down * blocks.across); };
  Index taps = 0;
  for (Index r = 0; r < down.kernel; ++r)
    for (Index t = 0; t < across.kernel; ++t)
      taps += work_of_tiles(k, s.channels,
                            pixels(outputs_inside(down, r, blocks.height, s.height).size(),
                                   outputs_inside(across, t, blocks.width, s.width).size()));
  const Index rows =
      down.kernel * work_of_tiles(k, across.kernel * s.channels, pixels(blocks.height, blocks.width));
  // What saves less than a twentieth saves nothing: 32 x 32 pixels of 64 channels take 1.02 of the time.
  return 20 * taps < 19 * rows;
}

template <class T>
class WeightGradient {
 public:
  WeightGradient(const Kernels<T>& kernels, const ConvWeights<T>& call, T* workspace, T* panels)
      : k_(kernels.gemm),
        call_(call),
        s_(call.sizes),
        blocks_(s_, k_.depth_block),
        by_taps_(sums_by_taps(k_, s_, blocks_)),
        lines_(by_taps_ ? s_.window.taps() : s_.window.y.kernel),
        length_(s_.depth() / lines_),
        together_(images_together(k_, s_)),
        width_(panel_width(k_, s_.group_filters())),
        panels_(panels),
        dz_(workspace),
        buffer_(dz_ + dz_size(k_, s_)) {}

  // Small filters have few sums to share out, and every member would go through all images for its own: the
  // images are cut into parts of their own sums instead, which are then added in order. 16 images and more
  // keep as many members busy; beyond 128 KB of sums there are panels and taps enough for them all.
  static Index parts(const GemmKernels<T>& k, const ConvSizes& s) {
    const bool small = sums_size(k, s) * static_cast<Index>(sizeof(T)) <= 128 * 1024;
    return small ? std::clamp<Index>(s.images, 1, 16) : 1;
  }
  static Index dz_size(const GemmKernels<T>& k, const ConvSizes& s) {
    return whole_lines<T>(k.depth_block * panel_width(k, s.group_filters()));
  }
  static Index workspace_size(const GemmKernels<T>& k, const ConvSizes& s) {
    const Index covered = PixelBlocks(s, k.depth_block).covered_elements(s);
    const Index images = checked_mul(images_together(k, s), checked_mul(s.height * s.width, s.channels));
    return checked_add(dz_size(k, s), whole_lines<T>(std::max(covered, images)));
  }

  void run(const Team& team) {
    const Index of_group = pieces(s_.group_filters(), width_);
    const Index items = s_.groups * of_group * lines_, count = parts(k_, s_);
    if (count == 1)
      return add_images({0, s_.images}, team.share(items), of_group, panels_, !call_.accumulate);
    const Index size = sums_size(k_, s_);
    team.deal(count, [&](Index part) {
      add_images({cut(s_.images, count, part), cut(s_.images, count, part + 1)}, {0, items}, of_group,
                 panels_ + part * size, part > 0 || !call_.accumulate);
    });
  }

 private:
  // Images whose pixels make one sum in a register, where it goes by taps: 7 of 7 x 7 pixels, so that the
  // sums pass by a seventh as often.
  static Index images_together(const GemmKernels<T>& k, const ConvSizes& s) {
    constexpr Index most_bytes = 1024 * 1024;  // half of an L2 of 2 MB
    const PixelBlocks blocks(s, k.depth_block);
    if (blocks.down > 1 || blocks.across > 1 || s.window.y.stride > 1 || !sums_by_taps(k, s, blocks))
      return 1;
    const Index image = std::max<Index>(1, s.height * s.width * s.channels * static_cast<Index>(sizeof(T)));
    const Index most = k.depth_block / std::max<Index>(1, blocks.height * blocks.width);
    return std::clamp<Index>(std::min(most, most_bytes / image), 1, std::max<Index>(1, s.images));
  }

  // To some of the sums what some images give; where they are `fresh`, what they held is not read.
  void add_images(Span images, Span mine, Index of_group, T* sums, bool fresh) {
    if (mine.size() <= 0) return;
    const Index groups = pieces(images.size(), together_);
    for (Index n = 0; n < groups; ++n) {
      const Span group{images.begin + cut(images.size(), groups, n),
                       images.begin + cut(images.size(), groups, n + 1)};
      for (Index i = 0; i < blocks_.down; ++i)
        for (Index j = 0; j < blocks_.across; ++j) {
          const Span rows = blocks_.rows(i), cols = blocks_.cols(j);
          if (by_taps_)
            add_taps(mine, of_group, sums, group, rows, cols, fresh);
          else
            add_rows(mine, of_group, sums, group.begin, rows, cols, fresh);
          fresh = false;
        }
    }
    if (fresh)
      for (Index item = mine.begin; item < mine.end; ++item)
        std::fill_n(sums_of(item / lines_, item % lines_, of_group, sums), length_ * width_, T(0));
  }

  T* sums_of(Index panel, Index line, Index of_group, T* sums) const {
    return sums + panel / of_group * panel_elements(k_, s_.depth(), s_.group_filters()) +
           panel % of_group * width_ * s_.depth() + line * length_ * width_;
  }

  TileArgs<T> tile_of(bool first) const {
    TileArgs<T> tile;
    tile.a_row = 1;
    tile.a_step = s_.window.x.stride * s_.channels;
    tile.b_step = tile.c_row = tile.cols = width_;
    tile.alpha = 1;
    tile.beta = first ? T(0) : T(1);
    tile.bias = nullptr;
    tile.act = Act::identity;
    tile.slope = 1;
    return tile;
  }

  // The gradients of some pixels of a row, by a panel's filters.
  const T* gradients(Index image, Index row, Index col, Index panel, Index of_group) const {
    return call_.dz + ((image * blocks_.height + row) * blocks_.width + col) * s_.filters +
           panel / of_group * s_.group_filters() + panel % of_group * width_;
  }
  void pack(Index pixels, const T* dz, Index panel, Index of_group, T* to) const {
    k_.pack_b(pixels, std::min(width_, s_.group_filters() - panel % of_group * width_), width_, dz,
              s_.filters, 1, to);
  }
  // As many filters as a panel has: dz is one already.
  bool is_panel() const { return s_.groups == 1 && s_.filters == width_; }

  void add_taps(Span mine, Index of_group, T* sums, Span images, Span rows, Span cols, bool first) {
    const WindowAxis &down = s_.window.y, &across = s_.window.x;
    const Index line = s_.width * s_.channels, n = images.size();
    const T* const x = n == 1 ? call_.x + images.begin * s_.height * line : side_by_side(images);
    const bool in_place = is_panel() && n == 1 && cols.size() == blocks_.width;
    TileArgs<T> tile = tile_of(first);
    Index packed = -1;
    for (Index item = mine.begin; item < mine.end; ++item) {
      const Index panel = item / lines_, r = item % lines_ / across.kernel, t = item % across.kernel;
      const Span high = common(outputs_inside(down, r, blocks_.height, s_.height), rows),
                 wide = common(outputs_inside(across, t, blocks_.width, s_.width), cols);
      tile.depth = high.size() * n * wide.size();
      if (tile.depth == 0 && !first) continue;
      if (packed != panel && !in_place) pack_block(images, rows, cols, panel, of_group);
      packed = panel;
      const T* const dz = in_place ? gradients(images.begin, rows.begin, 0, panel, of_group) : dz_;
      tile.b = dz + ((high.begin - rows.begin) * n * cols.size() + wide.begin - cols.begin) * width_;
      tile.b_jump = (cols.size() - wide.size()) * width_;
      tile.a_run = tile.a_chunk = wide.size();
      tile.a_jump = down.stride * line - wide.size() * tile.a_step;
      const Index y = high.begin * down.stride - down.before + r * down.dilation;
      const Index pixel = wide.begin * across.stride - across.before + t * across.dilation;
      add_line(tile, x + y * n * line + pixel * s_.channels + panel / of_group * s_.group_channels(),
               sums_of(panel, item % lines_, of_group, sums));
    }
  }

  // Row by row, the images one behind the other in it, so that all rows of all of them lie equally far apart.
  const T* side_by_side(Span images) const {
    const Index line = s_.width * s_.channels;
    for (Index i = 0; i < s_.height; ++i)
      for (Index n = 0; n < images.size(); ++n)
        std::copy_n(call_.x + ((images.begin + n) * s_.height + i) * line, line,
                    buffer_ + (i * images.size() + n) * line);
    return buffer_;
  }
  // The gradients in the same order.
  void pack_block(Span images, Span rows, Span cols, Index panel, Index of_group) const {
    if (images.size() == 1)
      return pack(rows.size() * cols.size(), gradients(images.begin, rows.begin, cols.begin, panel, of_group),
                  panel, of_group, dz_);
    T* to = dz_;
    for (Index i = rows.begin; i < rows.end; ++i)
      for (Index n = images.begin; n < images.end; ++n, to += cols.size() * width_)
        pack(cols.size(), gradients(n, i, cols.begin, panel, of_group), panel, of_group, to);
  }

  void add_rows(Span mine, Index of_group, T* sums, Index image, Span rows, Span cols, bool first) {
    const Band<T> band = band_of(call_.x + image * s_.height * s_.width * s_.channels, s_.height, s_.width,
                                 s_.channels, s_.window, rows, cols, buffer_);
    TileArgs<T> tile = tile_of(first);
    tile.depth = rows.size() * cols.size();
    tile.a_run = tile.a_chunk = cols.size();
    tile.a_jump = s_.window.y.stride * band.pitch - cols.size() * tile.a_step;
    Index packed = -1;
    for (Index item = mine.begin; item < mine.end; ++item) {
      const Index panel = item / lines_, row = item % lines_;
      const T* const dz = gradients(image, rows.begin, cols.begin, panel, of_group);
      const bool in_place = is_panel() && cols.size() == blocks_.width;
      if (packed != panel && !in_place) pack(tile.depth, dz, panel, of_group, dz_);
      packed = panel;
      tile.b = in_place ? dz : dz_;
      add_line(tile, band.data + row * s_.window.y.dilation * band.pitch,
               sums_of(panel, row, of_group, sums));
    }
  }

  // In tiles whose heights differ by one at most.
  void add_line(TileArgs<T>& tile, const T* a, T* c) const {
    const Index tiles = pieces(length_, k_.rows), higher = length_ % tiles;
    for (Index pass = 0; pass < 2; ++pass) {
      const Index height = length_ / tiles + (pass == 0), count = pass == 0 ? higher : tiles - higher;
      if (count == 0) continue;
      tile.tiles = count;
      tile.a = a;
      tile.a_next = height;
      tile.c = c;
      k_.kernel[height - 1][width_ / k_.lanes - 1](tile);
      a += count * height;
      c += count * height * width_;
    }
  }

  const GemmKernels<T>& k_;
  const ConvWeights<T>& call_;
  const ConvSizes& s_;
  const PixelBlocks blocks_;
  const bool by_taps_;
  const Index lines_, length_;  // of a window: pieces whose elements lie one behind the other
  const Index together_;        // images
  const Index width_;           // of a panel
  T *panels_, *dz_, *buffer_;
};

}  // namespace

template <class T>
const char* conv_path(const ConvWeights<T>& call) {
  return describe(weights_path(call.sizes));
}

// Fewer images may go another way than so many.
template <class T>
Index conv_workspace(const Kernels<T>& kernels, const ConvWeights<T>& call) {
  const ConvSizes& s = call.sizes;
  const ConvPath path = weights_path(s);
  if (path == ConvPath::gemm) return gemm_workspace(kernels, as_gemm(call));
  const GemmKernels<T>& k = kernels.gemm;
  const bool depthwise = path == ConvPath::depthwise;
  Index parts = depthwise ? DepthwiseGradient<T>::parts(s) : WeightGradient<T>::parts(k, s),
        own = depthwise ? 0 : WeightGradient<T>::workspace_size(k, s);
  if (is_winograd(path))
    for (ConvPath way : {ConvPath::winograd, ConvPath::winograd4}) {
      const WinogradWeights<T> w = as_winograd(call, way);
      parts = std::max(parts, winograd_parts(kernels, w));
      own = std::max(own, winograd_workspace(kernels, w));
    }
  return checked_mul(checked_add(checked_mul(parts, sums_size(k, s)), own), static_cast<Index>(sizeof(T)));
}

template <class T>
void conv(const Kernels<T>& kernels, const Team& team, const ConvWeights<T>& call, void* workspace) {
  const ConvSizes& s = call.sizes;
  const ConvPath path = weights_path(s);
  if (path == ConvPath::gemm) return gemm(kernels, team, as_gemm(call), workspace);
  // Depthwise, the filters of one channel each are one group of panels.
  const bool depthwise = path == ConvPath::depthwise;
  const GemmKernels<T>& k = kernels.gemm;
  const Index depth = s.depth(), groups = depthwise ? 1 : s.groups, filters = s.filters / groups;
  const Index group = panel_elements(k, depth, filters), size = sums_size(k, s);
  T* const panels = static_cast<T*>(team.common(workspace));
  if (call.accumulate) {
    for (Index g = 0; g < groups; ++g)
      to_panels(k, team, {call.dweight + g * filters * depth, depth, filters, 1, depth}, panels + g * group);
    team.barrier();
  }
  Index parts;
  if (depthwise) {
    parts = DepthwiseGradient<T>::parts(s);
    DepthwiseGradient<T>(kernels, call).run(team, panels, size);
  } else if (is_winograd(path)) {
    WinogradWeights<T> w = as_winograd(call, path);
    w.panels = panels;
    w.parts = parts = winograd_parts(kernels, w);
    w.part_size = size;
    winograd(kernels, team, w, static_cast<T*>(workspace) + parts * size);
  } else {
    parts = WeightGradient<T>::parts(k, s);
    WeightGradient<T>(kernels, call, static_cast<T*>(workspace) + parts * size, panels).run(team);
  }
  team.barrier();
  if (parts > 1) {
    const Span mine = team.share(size, in_a_line<T>);
    for (Index part = 1; part < parts; ++part)
      kernels.element.add(mine.size(), panels + mine.begin, panels + part * size + mine.begin,
                          panels + mine.begin);
    team.barrier();
  }
  for (Index g = 0; g < groups; ++g)
    from_panels_of_transpose(k, team, depth, filters, panels + g * group, call.dweight + g * filters * depth);
  team.barrier();  // the leading member's workspace is its own again
}

#define GEMMULE_INSTANTIATE(T)                                                \
  template const char* conv_path<T>(const ConvWeights<T>&);                   \
  template Index conv_workspace<T>(const Kernels<T>&, const ConvWeights<T>&); \
  template void conv<T>(const Kernels<T>&, const Team&, const ConvWeights<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
