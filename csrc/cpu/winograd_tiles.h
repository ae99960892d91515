// What Winograd's convolutions share: the tiles of m x m outputs that images fall into.
#pragma once
#include <algorithm>

#include "cpu/gemm_parts.h"
#include "cpu/winograd.h"

namespace gemmule::cpu {

// The largest tile's pixels, along either side.
inline constexpr Index most_winograd_pixels = 6;

// Where a tile lies: its image, and its first output.
struct TilePlace {
  Index image, y, x;
};

class WinogradTiles {
 public:
  // Of `images` of so many outputs each, m along either side of a tile.
  WinogradTiles(Index m, Index images, Index height, Index width)
      : m_(m),
        height_(height),
        width_(width),
        down_(pieces(height, m)),
        across_(pieces(width, m)),
        count_(checked_mul(images, checked_mul(down_, across_))) {}

  Index count() const { return count_; }
  TilePlace operator[](Index tile) const {
    const Index in_image = tile % (down_ * across_);
    return {tile / (down_ * across_), in_image / across_ * m_, in_image % across_ * m_};
  }
  // Outputs of a tile that its image has.
  Index rows(const TilePlace& place) const { return std::min(m_, height_ - place.y); }
  Index cols(const TilePlace& place) const { return std::min(m_, width_ - place.x); }

 private:
  Index m_, height_, width_;
  Index down_, across_;  // of an image
  Index count_;
};

// The addresses of the size x size pixels from (top, left) on; of those outside the image, `zeros`.
template <class T>
void list_pixels(const T* image, Index height, Index width, Index channels, Index top, Index left, Index size,
                 const T* zeros, const T** pixels) {
  for (Index i = 0; i < size; ++i) {
    const bool row_inside = top + i >= 0 && top + i < height;
    Index at = ((top + i) * width + left) * channels;
    for (Index j = 0; j < size; ++j, at += channels)
      pixels[i * size + j] = row_inside && left + j >= 0 && left + j < width ? image + at : zeros;
  }
}

}  // namespace gemmule::cpu
