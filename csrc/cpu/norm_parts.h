// What normalizations over a batch, and over the pixels of a sample, share: how (pixels, channels) is cut,
// and constants by column.
#pragma once
#include <algorithm>

#include "core/tensor.h"
#include "core/threads.h"
#include "cpu/dispatch.h"
#include "cpu/norm.h"

namespace gemmule::cpu {

// How (pixels, channels) is cut. Few channels would leave lanes idle and few sums under way, so that some
// pixels, one behind the other in memory, are taken as one row of a wider matrix.
template <class T>
struct Blocks {
  explicit Blocks(const NormSizes& sizes) : pixels(sizes.pixels), channels(sizes.channels) {
    const Index lanes = kernels<T>().gemm.lanes;
    // Four vectors are four chains of sums. Beyond 256 columns a last vector that is not full costs little.
    while (beside * channels < 4 * lanes || (beside * channels % lanes != 0 && beside * channels < 256))
      beside *= 2;
    // A block, read twice, stays in L1 (half of 32 KB); where rows are long, in L2.
    const Index rows = 16 * 1024 / (width() * static_cast<Index>(sizeof(T)));
    each = std::clamp<Index>(rows, 32, 384) * beside;
  }
  Index width() const { return beside * channels; }
  Index count() const { return (pixels + each - 1) / each; }
  Span block(Index i) const { return {i * each, std::min(pixels, (i + 1) * each)}; }

  Index pixels, channels;
  Index beside = 1;  // pixels of a row
  Index each;        // pixels of a block
};

// body(first element, rows, columns, whether it is the first) for the full rows of a block, and for what is
// left.
template <class T, class Body>
void for_rows(const Blocks<T>& blocks, Span block, const Body& body) {
  const Index rows = block.size() / blocks.beside, left = block.size() % blocks.beside;
  const Index at = block.begin * blocks.channels;
  if (rows > 0) body(at, rows, blocks.width(), true);
  if (left > 0) body(at + rows * blocks.width(), Index(1), left * blocks.channels, rows == 0);
}

// The sum of column c over the pixels beside each other.
template <class T>
double folded(const Blocks<T>& blocks, const T* sums, Index c) {
  double sum = 0;
  for (Index i = 0; i < blocks.beside; ++i) sum += static_cast<double>(sums[i * blocks.channels + c]);
  return sum;
}

// table[i channels + c] = value(c)
template <class T, class Value>
void spread(const Blocks<T>& blocks, T* table, const Value& value) {
  for (Index c = 0; c < blocks.channels; ++c) table[c] = static_cast<T>(value(c));
  for (Index i = 1; i < blocks.beside; ++i) std::copy_n(table, blocks.channels, table + i * blocks.channels);
}

}  // namespace gemmule::cpu
