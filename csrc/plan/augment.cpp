#include "plan/augment.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/philox.h"

namespace gemmule {
namespace {

// Where dropout has the number of a layer, next to shuffling's: no layer's is so high.
constexpr std::uint32_t augment_tag = 0xFFFFFFFE;

bool happens(std::uint64_t word, double probability) {
  return static_cast<double>(static_cast<std::uint32_t>(word)) < probability * 0x1p32;
}

// Uniform on -most..most; each of the n places has one of 2^32 words more or less than its share at most.
Index offset(std::uint64_t word, Index most) {
  const auto places = static_cast<std::uint64_t>(2 * most + 1);
  return static_cast<Index>(static_cast<std::uint32_t>(word) * places >> 32) - most;
}

// The pixel of [0, size) that is seen at a place less than `size` beyond either end; -1: the constant.
Index seen_at(Index place, Index size, Fill fill) {
  if (place >= 0 && place < size) return place;
  switch (fill) {
    case Fill::constant:
      return -1;
    case Fill::edge:
      return place < 0 ? 0 : size - 1;
    case Fill::reflect:
      return place < 0 ? -place : 2 * (size - 1) - place;
  }
  return -1;
}

// dst = the pixels of src, the last first.
template <Index pixel>
void mirror(const std::byte* src, Index count, std::byte* dst) {
  for (Index i = 0; i < count; ++i) std::memcpy(dst + i * pixel, src + (count - 1 - i) * pixel, pixel);
}

// Bytes, floats and doubles of one channel, three and four have copies of their own: a memcpy whose length is
// not known beforehand is a call for every pixel.
void mirror(Index pixel, const std::byte* src, Index count, std::byte* dst) {
  switch (pixel) {
    case 1:
      return mirror<1>(src, count, dst);
    case 3:
      return mirror<3>(src, count, dst);
    case 4:
      return mirror<4>(src, count, dst);
    case 8:
      return mirror<8>(src, count, dst);
    case 12:
      return mirror<12>(src, count, dst);
    case 16:
      return mirror<16>(src, count, dst);
    case 24:
      return mirror<24>(src, count, dst);
    case 32:
      return mirror<32>(src, count, dst);
    default:
      for (Index i = 0; i < count; ++i)
        std::memcpy(dst + i * pixel, src + (count - 1 - i) * pixel, static_cast<std::size_t>(pixel));
  }
}

template <class T>
std::vector<std::byte> row_of(double value, Index count) {
  const auto element = static_cast<T>(value);
  std::vector<std::byte> row(static_cast<std::size_t>(count) * sizeof(T));
  for (std::size_t at = 0; at < row.size(); at += sizeof(T)) std::memcpy(&row[at], &element, sizeof(T));
  return row;
}

std::vector<std::byte> constant_row(DType type, double value, Index count) {
  switch (type) {
    case DType::u8:
      require(value >= 0 && value <= 255 && value == std::floor(value), ErrorKind::value, "augment: fill is ",
              value, "; images of uint8 take a whole number of 0..255");
      return row_of<std::uint8_t>(value, count);
    case DType::f32:
      require(std::isfinite(static_cast<float>(value)), ErrorKind::value, "augment: fill is ", value,
              ", which float32 does not hold");
      return row_of<float>(value, count);
    case DType::f64:
      require(std::isfinite(value), ErrorKind::value, "augment: fill is ", value);
      return row_of<double>(value, count);
    case DType::i64:
      break;
  }
  fail(ErrorKind::dtype, "augment: images are of ", name_of(type), ", not uint8, float32 or float64");
}

}  // namespace

Augmenter::Augmenter(const Augmentation& how, DType type, const Shape& image)
    : how_(how), type_(type), image_(image) {
  require(image.rank() == 3, ErrorKind::shape, "augment: a sample has shape ", image,
          "; images (H, W, C) are due");
  require(image.count() > 0, ErrorKind::shape, "augment: images of shape ", image, " hold no pixel");
  height_ = image[0];
  width_ = image[1];
  for (double probability : {how.flip, how.vertical_flip})
    require(probability >= 0 && probability <= 1, ErrorKind::value, "augment: a probability is ",
            probability);
  require(how.down >= 0 && how.across >= 0, ErrorKind::value, "augment: moves by ", how.down, " and ",
          how.across, " pixels");
  require(how.down < height_ && how.across < width_, ErrorKind::shape, "augment: a view that moves by up to ",
          Shape{how.down, how.across}, " pixels would leave nothing of an image of ", Shape{height_, width_});
  constexpr Index most = Index{1} << 31;  // a place times a word has 64 bits
  require(height_ < most && width_ < most, ErrorKind::shape, "augment: the image ", image, " is too large");
  pixel_ = checked_mul(image[2], size_of(type));
  row_ = checked_mul(width_, pixel_);
  constant_ = constant_row(type, how.value, width_ * image[2]);
}

void Augmenter::apply(std::uint64_t key, std::uint64_t step, std::uint64_t sample, const std::byte* src,
                      std::byte* dst) const {
  std::uint64_t words[4] = {0, sample, augment_tag, step};
  philox<ScalarWords>(words, key);
  const bool mirrored = happens(words[0], how_.flip), upside_down = happens(words[1], how_.vertical_flip);
  const Index down = offset(words[2], how_.down), across = offset(words[3], how_.across);
  for (Index i = 0; i < height_; ++i, dst += row_) {
    const Index row = seen_at((upside_down ? height_ - 1 - i : i) + down, height_, how_.fill);
    if (row < 0)
      std::memcpy(dst, constant_.data(), static_cast<std::size_t>(row_));
    else
      copy_row(src + row * row_, across, mirrored, dst);
  }
}

// Of the row seen, [begin, end) is the image's own, from its pixel max(across, 0) on in either direction.
void Augmenter::copy_row(const std::byte* src, Index across, bool mirrored, std::byte* dst) const {
  const Index moved = mirrored ? -across : across;
  const Index begin = std::max<Index>(0, -moved), end = width_ - std::max<Index>(0, moved);
  const std::byte* own = src + std::max<Index>(0, across) * pixel_;
  if (mirrored)
    mirror(pixel_, own, end - begin, dst + begin * pixel_);
  else
    std::memcpy(dst + begin * pixel_, own, static_cast<std::size_t>((end - begin) * pixel_));
  const auto beyond = [&](Index first, Index last) {
    if (how_.fill == Fill::constant) {
      std::memcpy(dst + first * pixel_, constant_.data(), static_cast<std::size_t>((last - first) * pixel_));
      return;
    }
    for (Index j = first; j < last; ++j) {
      const Index place = seen_at((mirrored ? width_ - 1 - j : j) + across, width_, how_.fill);
      std::memcpy(dst + j * pixel_, src + place * pixel_, static_cast<std::size_t>(pixel_));
    }
  };
  beyond(0, begin);
  beyond(end, width_);
}

Fill fill_of(const std::string& name) {
  if (name == "constant") return Fill::constant;
  if (name == "edge") return Fill::edge;
  if (name == "reflect") return Fill::reflect;
  fail(ErrorKind::value, "unknown fill '", name, "'; known are constant, edge, reflect");
}

}  // namespace gemmule
