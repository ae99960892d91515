// Images changed at random on their way into a batch: moved, and mirrored.
#pragma once
#include <string>
#include <vector>

#include "core/tensor.h"

namespace gemmule {

// What is seen beyond the edge of an image.
enum class Fill : std::uint8_t { constant, edge, reflect };

// What may be done to an image.
struct Augmentation {
  double flip = 0, vertical_flip = 0;  // the probabilities of being mirrored
  Index down = 0, across = 0;          // by up to so many pixels the view moves, either way
  Fill fill = Fill::constant;
  double value = 0;  // of a constant
};

// Does it to images of one shape and type.
class Augmenter {
 public:
  // image: (H, W, C). ErrorKind::shape where the view could move off the image, ErrorKind::value for
  // probabilities that are none and a constant that the type does not hold.
  Augmenter(const Augmentation& how, DType type, const Shape& image);

  // dst = src as it is seen as sample `sample` of step `step` under this key. They do not overlap.
  void apply(std::uint64_t key, std::uint64_t step, std::uint64_t sample, const std::byte* src,
             std::byte* dst) const;

  const Shape& image() const { return image_; }
  DType type() const { return type_; }
  Index bytes() const { return height_ * row_; }  // of an image

 private:
  void copy_row(const std::byte* src, Index across, bool mirrored, std::byte* dst) const;

  const Augmentation how_;
  const DType type_;
  const Shape image_;
  Index height_, width_, pixel_, row_;  // the last two in bytes
  std::vector<std::byte> constant_;     // a row of it
};

// ErrorKind::value, listing the known names, for any other: they are those of NumPy's pad.
Fill fill_of(const std::string& name);

}  // namespace gemmule
