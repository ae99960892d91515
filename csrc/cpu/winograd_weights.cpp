// dW by Winograd's algorithm: for each of the n^2 components a product of the transformed pixels of all tiles
// and of their outputs' transformed gradients, (channels, tiles) (tiles, filters), transformed back at the
// end.
#include "cpu/winograd_tiles.h"

namespace gemmule::cpu {
namespace {

// Of a chunk, whose n^2 components of sums, 1.2 MB of them, stay in an L2 of 2 MB or come from L3, each
// once for a block of tiles. Pixels are transformed again for every chunk of filters, gradients for every
// chunk of channels.
inline constexpr Index most_channels = 128, most_filters = 64;
// Terms of a sum in a register: sums are read and written once for so many.
inline constexpr Index most_tiles = 96, least_tiles = 24;
// Transformed pixels and gradients that a member has at hand.
inline constexpr Index block_bytes = 512 * 1024;
// Chunks times parts: three and more for each of a few members, however many there are.
inline constexpr Index most_items = 16;

template <class T>
class WinogradGradient {
 public:
  WinogradGradient(const Kernels<T>& kernels, const WinogradWeights<T>& call)
      : k_(kernels.gemm),
        w_(call.outputs == 4 ? kernels.winograd4 : kernels.winograd2),
        call_(call),
        m_(call.outputs),
        n_(call.outputs + 2),
        tiles_(m_, call.images, call.out_height, call.out_width),
        width_(panel_width(k_, call.filters)),
        panels_(pieces(call.filters, width_)),
        chunk_(round_up(even_chunk(call.channels, most_channels), k_.lanes)),
        chunks_(pieces(call.channels, chunk_)),
        chunk_panels_(even_chunk(panels_, std::max<Index>(1, most_filters / width_))),
        panel_chunks_(pieces(panels_, chunk_panels_)) {
    const Index tile_bytes = n_ * n_ * (chunk_ + chunk_panels_ * width_) * static_cast<Index>(sizeof(T));
    most_ = std::clamp<Index>(block_bytes / tile_bytes, least_tiles, most_tiles);
    most_ = std::max<Index>(1, std::min(most_, tiles_.count()));
    pixels_step_ = most_ * chunk_ + in_a_line<T>;
    grads_step_ = chunk_panels_ * most_ * width_ + in_a_line<T>;
    sums_step_ = chunk_panels_ * chunk_ * width_ + in_a_line<T>;
  }

  Index parts() const {
    return std::clamp<Index>(most_items / (chunks_ * panel_chunks_), 1, pieces(tiles_.count(), most_));
  }
  Index workspace_size() const {
    return whole_lines<T>(n_ * n_ * (pixels_step_ + grads_step_ + sums_step_)) + zeros_size();
  }

  void run(const Team& team, T* workspace) {
    if (call_.channels <= 0 || call_.filters <= 0) return;
    zeros_ = workspace;
    pixels_ = zeros_ + zeros_size();
    grads_ = pixels_ + n_ * n_ * pixels_step_;
    sums_ = grads_ + n_ * n_ * grads_step_;
    std::fill_n(zeros_, zeros_size(), T(0));
    team.deal(call_.parts * chunks_ * panel_chunks_, [&](Index item) {
      const Index part = item % call_.parts, chunk = item / call_.parts;
      make(part, chunk % chunks_, chunk / chunks_);
    });
  }

 private:
  // The smallest chunk that is not needed more often than chunks of `most`.
  static Index even_chunk(Index count, Index most) {
    return std::max<Index>(1, pieces(count, std::max<Index>(1, pieces(count, most))));
  }
  Index zeros_size() const { return whole_lines<T>(std::max(chunk_, width_)); }

  // A chunk of channels and one of panels.
  struct Chunk {
    Span channels, panels;
  };

  // The sums of a part, of one chunk, in their place among the part's panels.
  void make(Index part, Index c, Index p) {
    const Chunk chunk{{c * chunk_, std::min(call_.channels, (c + 1) * chunk_)},
                      {p * chunk_panels_, std::min(panels_, (p + 1) * chunk_panels_)}};
    const Span tiles{cut(tiles_.count(), call_.parts, part), cut(tiles_.count(), call_.parts, part + 1)};
    const Index blocks = std::max<Index>(1, pieces(tiles.size(), most_));
    for (Index block = 0; block < blocks; ++block) {
      const Span some{tiles.begin + cut(tiles.size(), blocks, block),
                      tiles.begin + cut(tiles.size(), blocks, block + 1)};
      for (Index t = some.begin; t < some.end; ++t) transform(tiles_[t], t - some.begin, chunk);
      multiply(some.size(), chunk, block == 0);
    }
    const Index depth = chunk.channels.size();
    for (Index panel = chunk.panels.begin; panel < chunk.panels.end; ++panel)
      w_.filters_grad({depth * width_, sums_ + (panel - chunk.panels.begin) * depth * width_, sums_step_,
                       call_.panels + part * call_.part_size +
                           (panel * 9 * call_.channels + chunk.channels.begin) * width_,
                       call_.channels * width_, part == 0 && call_.accumulate});
  }

  // Component e of tile t: pixels at e pixels_step_ + t chunk_, gradients by panels.
  void transform(const TilePlace& place, Index t, const Chunk& chunk) const {
    const T* from[most_winograd_pixels * most_winograd_pixels];
    const T* const image =
        call_.x + place.image * call_.height * call_.width * call_.channels + chunk.channels.begin;
    list_pixels(image, call_.height, call_.width, call_.channels, place.y - call_.before_y,
                place.x - call_.before_x, n_, zeros_, from);
    w_.input({chunk.channels.size(), from, pixels_ + t * chunk_, pixels_step_});
    for (Index panel = chunk.panels.begin; panel < chunk.panels.end; ++panel) {
      const Index j = panel * width_;
      const T* const grads = call_.dz + place.image * call_.out_height * call_.out_width * call_.filters + j;
      list_pixels(grads, call_.out_height, call_.out_width, call_.filters, place.y, place.x, m_, zeros_,
                  from);
      w_.output_grad({std::min(width_, call_.filters - j), from,
                      grads_ + ((panel - chunk.panels.begin) * most_ + t) * width_, grads_step_});
    }
  }

  // To n^2 sums (panels, channels, width) the products (channels, tiles) (tiles, width).
  void multiply(Index tiles, const Chunk& chunk, bool first) const {
    const Index depth = chunk.channels.size();
    TileArgs<T> tile;
    tile.depth = tile.a_run = tile.a_chunk = tiles;
    tile.a_row = 1;
    tile.a_step = chunk_;
    tile.a_jump = 0;
    tile.b_step = tile.c_row = width_;
    tile.alpha = 1;
    tile.beta = first ? T(0) : T(1);
    tile.bias = nullptr;
    tile.act = Act::identity;
    tile.slope = 1;
    const Index count = pieces(depth, k_.rows), higher = depth % count;
    for (Index e = 0; e < n_ * n_; ++e)
      for (Index panel = 0; panel < chunk.panels.size(); ++panel) {
        // Vectors beyond the last filter hold nothing.
        const Index filters = std::min(width_, call_.filters - (chunk.panels.begin + panel) * width_);
        const Index vectors = pieces(filters, k_.lanes);
        tile.cols = vectors * k_.lanes;
        tile.b = grads_ + e * grads_step_ + panel * most_ * width_;
        tile.a = pixels_ + e * pixels_step_;
        tile.c = sums_ + e * sums_step_ + panel * depth * width_;
        for (Index pass = 0; pass < 2; ++pass) {
          const Index height = depth / count + (pass == 0);
          tile.tiles = pass == 0 ? higher : count - higher;
          if (tile.tiles == 0) continue;
          tile.a_next = height;
          k_.kernel[height - 1][vectors - 1](tile);
          tile.a += tile.tiles * height;
          tile.c += tile.tiles * height * width_;
        }
      }
  }

  const GemmKernels<T>& k_;
  const WinogradKernels<T>& w_;
  const WinogradWeights<T>& call_;
  const Index m_, n_;  // outputs and pixels along either side of a tile
  const WinogradTiles tiles_;
  const Index width_, panels_;                  // of filters
  const Index chunk_, chunks_;                  // channels of a chunk, whole vectors; how many
  const Index chunk_panels_, panel_chunks_;     // panels of a chunk; how many
  Index most_;                                  // tiles of a block
  Index pixels_step_, grads_step_, sums_step_;  // from component to component, odd in lines as filters are
  T *zeros_ = nullptr, *pixels_ = nullptr, *grads_ = nullptr, *sums_ = nullptr;
};

}  // namespace

template <class T>
Index winograd_parts(const Kernels<T>& kernels, const WinogradWeights<T>& call) {
  return WinogradGradient<T>(kernels, call).parts();
}

template <class T>
Index winograd_workspace(const Kernels<T>& kernels, const WinogradWeights<T>& call) {
  return WinogradGradient<T>(kernels, call).workspace_size();
}

template <class T>
void winograd(const Kernels<T>& kernels, const Team& team, const WinogradWeights<T>& call, T* workspace) {
  WinogradGradient<T>(kernels, call).run(team, workspace);
}

#define GEMMULE_INSTANTIATE(T)                                                        \
  template Index winograd_parts<T>(const Kernels<T>&, const WinogradWeights<T>&);     \
  template Index winograd_workspace<T>(const Kernels<T>&, const WinogradWeights<T>&); \
  template void winograd<T>(const Kernels<T>&, const Team&, const WinogradWeights<T>&, T*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
