#include "cpu/winograd.h"

#include "cpu/conv_parts.h"
#include "cpu/winograd_tiles.h"

namespace gemmule::cpu {
namespace {

// Channels of a panel of filters that are transformed at once: their nine taps take 36 KB.
inline constexpr Index filter_chunk = 64;
// Transformed pixels that a member has at hand: half of a 512 KB L2. All filters stream past each block of
// them, from L3, or from memory where there are more than that holds: then it pays to have fewer, larger
// blocks (512 channels of 7 x 7, GFLOP/s on two cores: 222 by 256 KB, 244 by 3 MB; 256 of 14 x 14 372 and
// 314).
inline constexpr Index block_bytes = 256 * 1024, large_block_bytes = 3 * 1024 * 1024;
inline constexpr Index many_filters_bytes = 16 * 1024 * 1024;
inline constexpr Index most_tiles = 48;

template <class T>
class WinogradConvolution {
 public:
  WinogradConvolution(const Kernels<T>& kernels, const WinogradCall<T>& call)
      : kernels_(kernels),
        k_(kernels.gemm),
        w_(call.outputs == 4 ? kernels.winograd4 : kernels.winograd2),
        call_(call),
        n_(call.outputs + 2),
        tiles_(call.outputs, call.images, call.out_height, call.out_width),
        row_(round_up(call.channels, k_.lanes)),
        width_(panel_width(k_, call.filters)),
        panels_(pieces(call.filters, width_)) {
    const Index size = n_ * n_ * row_ * static_cast<Index>(sizeof(T));  // of a tile
    const Index most = checked_mul(size, call.filters) > many_filters_bytes ? large_block_bytes : block_bytes;
    const Index fit = std::clamp<Index>(most / std::max<Index>(size, 1) / k_.rows, 2, most_tiles / k_.rows);
    most_ = std::max<Index>(1, std::min(tiles_.count(), fit * k_.rows));
    blocks_ = pieces(tiles_.count(), most_);
    if (tiles_.count() >= 4 * k_.rows)
      blocks_ = round_up(blocks_, 4);  // three would keep one of two members waiting
    u_step_ = call.channels * width_ + in_a_line<T>;
    v_step_ = most_ * row_ + in_a_line<T>;
    m_step_ = most_ * width_ + in_a_line<T>;
  }

  // Elements: transformed filters, which the team shares; then what is a member's own.
  Index filters_size() const {
    return whole_lines<T>(checked_mul(
        panels_, checked_mul(n_ * n_, checked_add(checked_mul(call_.channels, width_), in_a_line<T>))));
  }
  Index taps_size() const { return whole_lines<T>(9 * filter_chunk * width_); }
  Index pixels_size() const { return whole_lines<T>(checked_mul(n_ * n_, v_step_)); }
  Index products_size() const { return whole_lines<T>(n_ * n_ * m_step_); }
  Index workspace_size() const {
    return checked_add(filters_size(), checked_add(pixels_size(), std::max(taps_size(), products_size())) +
                                           whole_lines<T>(row_));
  }

  void run(const Team& team, T* workspace) {
    if (tiles_.count() <= 0 || call_.filters <= 0) return;
    u_ = static_cast<T*>(team.common(workspace));
    v_ = workspace + filters_size();
    m_ = v_ + pixels_size();
    zeros_ = m_ + std::max(taps_size(), products_size());
    std::fill_n(zeros_, row_, T(0));
    transform_filters(team);
    team.barrier();
    const Index count = tiles_.count();
    team.deal(blocks_,
              [&](Index block) { make({cut(count, blocks_, block), cut(count, blocks_, block + 1)}); });
    team.barrier();  // the leading member's workspace is its own again
  }

 private:
  // Panels of filters, each as n^2 components (channels, width). Steps between components are odd in lines:
  // as powers of two they would meet in one set of L1.
  void transform_filters(const Team& team) {
    const Index chunks = std::max<Index>(1, pieces(call_.channels, filter_chunk));
    T* const taps = m_;
    team.deal(panels_ * chunks, [&](Index item) {
      const Index j = item / chunks * width_, chunk = item % chunks;
      const Index begin = cut(call_.channels, chunks, chunk),
                  depth = cut(call_.channels, chunks, chunk + 1) - begin;
      const T* const from = call_.weight + j * call_.filter_step + begin * call_.channel_step;
      for (Index tap = 0; tap < 9; ++tap)
        k_.pack_b(depth, std::min(width_, call_.filters - j), width_, from + tap * call_.tap_step,
                  call_.channel_step, call_.filter_step, taps + tap * depth * width_);
      if (call_.scale) scale_filters(taps, 9 * depth, j);
      w_.filters({depth * width_, taps, depth * width_, filters_of(item / chunks) + begin * width_, u_step_});
    });
  }
  // Rows of a panel, whose first column is filter j.
  void scale_filters(T* rows, Index count, Index j) const {
    const Index cols = std::min(width_, call_.filters - j);
    for (Index p = 0; p < count; ++p)
      for (Index i = 0; i < cols; ++i) rows[p * width_ + i] *= call_.scale[j + i];
  }
  T* filters_of(Index panel) const { return u_ + panel * n_ * n_ * u_step_; }

  Index offset_of(const TilePlace& place) const {
    return ((place.image * call_.out_height + place.y) * call_.out_width + place.x) * call_.filters;
  }

  void make(Span tiles) {
    for (Index t = tiles.begin; t < tiles.end; ++t)
      transform_pixels(tiles_[t], v_ + (t - tiles.begin) * row_);
    for (Index panel = 0; panel < panels_; ++panel) {
      multiply(tiles.size(), filters_of(panel));
      for (Index t = tiles.begin; t < tiles.end; ++t)
        write(tiles_[t], panel * width_, m_ + (t - tiles.begin) * width_);
    }
    if (call_.residual || (call_.act != Act::identity && !in_registers()))
      for (Index t = tiles.begin; t < tiles.end; ++t) finish(tiles_[t]);
  }

  void transform_pixels(const TilePlace& place, T* v) const {
    const T* pixels[most_winograd_pixels * most_winograd_pixels];
    list_pixels(call_.x + place.image * call_.height * call_.width * call_.channels, call_.height,
                call_.width, call_.channels, place.y - call_.before_y, place.x - call_.before_x, n_, zeros_,
                pixels);
    w_.input({call_.channels, pixels, v, v_step_});
  }

  // The n^2 products (tiles, channels) (channels, width).
  void multiply(Index tiles, const T* u) const {
    TileArgs<T> tile;
    tile.a_row = row_;
    tile.a_step = 1;
    tile.a_jump = 0;
    tile.b_step = tile.cols = tile.c_row = width_;
    tile.alpha = 1;
    tile.bias = nullptr;
    tile.act = Act::identity;
    tile.slope = 1;
    const Index blocks = std::max<Index>(1, pieces(call_.channels, k_.depth_block));
    const Index groups = pieces(tiles, k_.rows), higher = tiles % groups;
    for (Index e = 0; e < n_ * n_; ++e)
      for (Index block = 0; block < blocks; ++block) {
        const Index begin = cut(call_.channels, blocks, block);
        tile.depth = tile.a_run = tile.a_chunk = cut(call_.channels, blocks, block + 1) - begin;
        tile.b = u + e * u_step_ + begin * width_;
        tile.beta = block == 0 ? T(0) : T(1);
        tile.a = v_ + e * v_step_ + begin;
        tile.c = m_ + e * m_step_;
        for (Index pass = 0; pass < 2; ++pass) {
          const Index height = tiles / groups + (pass == 0);
          tile.tiles = pass == 0 ? higher : groups - higher;
          if (tile.tiles == 0) continue;
          tile.a_next = height * row_;
          k_.kernel_rows[height - 1][width_ / k_.lanes - 1](tile);
          tile.a += tile.tiles * tile.a_next;
          tile.c += tile.tiles * height * width_;
        }
      }
  }

  void write(const TilePlace& place, Index j, const T* m) const {
    w_.output({m, m_step_, std::min(width_, call_.filters - j), call_.bias ? call_.bias + j : nullptr,
               in_registers() ? call_.act : Act::identity, call_.slope, call_.out + offset_of(place) + j,
               call_.out_width * call_.filters, call_.filters, tiles_.rows(place), tiles_.cols(place)});
  }

  bool in_registers() const {
    return !call_.saved && !call_.residual && (call_.act == Act::relu || call_.act == Act::leaky_relu);
  }

  // The residual, the activations that cost more, or the derivative, over the rows of a tile.
  void finish(const TilePlace& place) const {
    const Index count = tiles_.cols(place) * call_.filters;
    for (Index i = 0; i < tiles_.rows(place); ++i) {
      const Index at = offset_of(place) + i * call_.out_width * call_.filters;
      if (call_.residual) kernels_.element.add(count, call_.out + at, call_.residual + at, call_.out + at);
      if (call_.saved)
        kernels_.element.activation_grad(call_.act, call_.slope, count, call_.out + at, call_.saved + at,
                                         call_.out + at);
      else if (call_.act != Act::identity)
        kernels_.element.activation(call_.act, call_.slope, count, call_.out + at, call_.out + at);
    }
  }

  const Kernels<T>& kernels_;
  const GemmKernels<T>& k_;
  const WinogradKernels<T>& w_;
  const WinogradCall<T>& call_;
  const Index n_;  // pixels along either side of a tile
  const WinogradTiles tiles_;
  const Index row_;             // channels, to whole vectors
  const Index width_, panels_;  // of filters
  Index most_, blocks_;         // tiles of a block; how many
  Index u_step_, v_step_, m_step_;
  T *u_ = nullptr, *v_ = nullptr, *m_ = nullptr, *zeros_ = nullptr;
};

}  // namespace

template <class T>
Index winograd_workspace(const Kernels<T>& kernels, const WinogradCall<T>& call) {
  return WinogradConvolution<T>(kernels, call).workspace_size();
}

template <class T>
void winograd(const Kernels<T>& kernels, const Team& team, const WinogradCall<T>& call, T* workspace) {
  WinogradConvolution<T>(kernels, call).run(team, workspace);
}

#define GEMMULE_INSTANTIATE(T)                                                     \
  template Index winograd_workspace<T>(const Kernels<T>&, const WinogradCall<T>&); \
  template void winograd<T>(const Kernels<T>&, const Team&, const WinogradCall<T>&, T*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
