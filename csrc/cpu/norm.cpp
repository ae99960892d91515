#include "cpu/norm.h"

#include <algorithm>
#include <cmath>

#include "core/arena.h"
#include "core/tensor.h"
#include "cpu/dispatch.h"

namespace gemmule::cpu {
namespace {

constexpr Index tables = 4;  // of constants by column, the most that a formula has

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

// A member's memory: tables of its own, and in the leading member's what all see, two figures for each block
// and channel.
template <class T>
struct Memory {
  Memory(const Blocks<T>& blocks, void* workspace) : width(round_up(blocks.width(), 16)) {
    own = static_cast<T*>(workspace);
  }
  static Index bytes(const Blocks<T>& blocks) {
    const Index own = checked_mul(tables * round_up(blocks.width(), 16), static_cast<Index>(sizeof(T)));
    const Index shared =
        checked_mul(checked_mul(blocks.count(), 2 * blocks.channels), static_cast<Index>(sizeof(double)));
    return checked_add(own, round_up(shared, alignment));
  }
  T* table(Index i) const { return own + i * width; }
  double* shared(const Team& team) const { return static_cast<double*>(team.common(own + tables * width)); }

  Index width;
  T* own;
};

// gamma / sqrt(variance + eps)
template <class T>
double scale_of(const T* stats, const T* gamma, Index channels, Index c) {
  const double inverse = static_cast<double>(stats[channels + c]);
  return gamma ? static_cast<double>(gamma[c]) * inverse : inverse;
}

}  // namespace

template <class T>
Index norm_workspace(const NormSizes& sizes) {
  return Memory<T>::bytes(Blocks<T>(sizes));
}

// A block's squares are taken about its own mean, and blocks joined by Chan, Golub and LeVeque 1983: no mean,
// however large, cancels the variance.
template <class T>
void norm(const Team& team, const BatchStats<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const Blocks<T> blocks(call.sizes);
  const Memory<T> memory(blocks, workspace);
  const Index channels = blocks.channels;
  double* const means = memory.shared(team);  // (blocks, channels), then the squares alike
  double* const squares = means + blocks.count() * channels;
  T *const sums = memory.table(0), *const about = memory.table(1);
  team.deal(blocks.count(), [&](Index i) {
    const Span block = blocks.block(i);
    const auto n = static_cast<double>(block.size());
    std::fill_n(sums, blocks.width(), T(0));
    for_rows(blocks, block, [&](Index at, Index rows, Index cols, bool first) {
      k.element.sum_rows(rows, cols, call.x + at, cols, sums, !first);
    });
    double *const mean = means + i * channels, *const square = squares + i * channels;
    for (Index c = 0; c < channels; ++c) mean[c] = folded(blocks, sums, c) / n;
    spread(blocks, about, [&](Index c) { return mean[c]; });
    std::fill_n(sums, blocks.width(), T(0));
    for_rows(blocks, block, [&](Index at, Index rows, Index cols, bool first) {
      k.norm.square_sums(rows, cols, call.x + at, about, sums, !first);
    });
    for (Index c = 0; c < channels; ++c) {
      const double rounding = mean[c] - static_cast<double>(about[c]);
      square[c] = std::max(0.0, folded(blocks, sums, c) - n * rounding * rounding);
    }
  });
  team.barrier();
  const Span mine = team.share(channels, 16);
  for (Index c = mine.begin; c < mine.end; ++c) {
    double n = 0, mean = 0, square = 0;
    for (Index i = 0; i < blocks.count(); ++i) {
      const auto more = static_cast<double>(blocks.block(i).size());
      const double apart = means[i * channels + c] - mean;
      square += squares[i * channels + c] + apart * apart * n * more / (n + more);
      n += more;
      mean += apart * more / n;
    }
    call.stats[c] = static_cast<T>(mean);
    call.stats[channels + c] = static_cast<T>(1 / std::sqrt(square / n + call.eps));
    call.stats[2 * channels + c] = static_cast<T>(n > 1 ? square / (n - 1) : -1);
  }
  team.barrier();  // the leading member's workspace is its own again
}

template <class T>
void norm(const Team& team, const BatchNorm<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const Blocks<T> blocks(call.sizes);
  const Memory<T> memory(blocks, workspace);
  NormalizeArgs<T> args;
  args.mean = memory.table(0);
  args.scale = memory.table(1);
  args.shift = memory.table(2);
  args.act = call.act;
  args.slope = call.slope;
  spread(blocks, memory.table(0), [&](Index c) { return call.stats[c]; });
  spread(blocks, memory.table(1),
         [&](Index c) { return scale_of(call.stats, call.gamma, blocks.channels, c); });
  spread(blocks, memory.table(2), [&](Index c) { return call.beta ? call.beta[c] : T(0); });
  team.deal(blocks.count(), [&](Index i) {
    for_rows(blocks, blocks.block(i), [&](Index at, Index rows, Index cols, bool) {
      args.x = call.x + at;
      args.residual = call.residual ? call.residual + at : nullptr;
      args.y = call.y + at;
      k.norm.normalize(args, rows, cols);
    });
  });
}

template <class T>
void norm(const Team& team, const BatchNormSums<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const Blocks<T> blocks(call.sizes);
  const Memory<T> memory(blocks, workspace);
  const Index channels = blocks.channels;
  double* const sums = memory.shared(team);  // (blocks, channels), then those of products alike
  double* const products = sums + blocks.count() * channels;
  NormSumsArgs<T> args;
  args.mean = memory.table(0);
  args.sums = memory.table(1);
  args.products = memory.table(2);
  args.act = call.act;
  args.slope = call.slope;
  spread(blocks, memory.table(0), [&](Index c) { return call.stats[c]; });
  team.deal(blocks.count(), [&](Index i) {
    std::fill_n(args.sums, blocks.width(), T(0));
    std::fill_n(args.products, blocks.width(), T(0));
    for_rows(blocks, blocks.block(i), [&](Index at, Index rows, Index cols, bool first) {
      args.dy = call.dy + at;
      args.x = call.x + at;
      args.saved = call.saved ? call.saved + at : nullptr;
      k.norm.grad_sums(args, rows, cols, !first);
    });
    for (Index c = 0; c < channels; ++c) {
      sums[i * channels + c] = folded(blocks, args.sums, c);
      products[i * channels + c] = folded(blocks, args.products, c);
    }
  });
  team.barrier();
  const Span mine = team.share(channels, 16);
  for (Index c = mine.begin; c < mine.end; ++c) {
    double sum = 0, product = 0;
    for (Index i = 0; i < blocks.count(); ++i) {
      sum += sums[i * channels + c];
      product += products[i * channels + c];
    }
    call.sums[c] = static_cast<T>(sum);
    call.sums[channels + c] = static_cast<T>(product * static_cast<double>(call.stats[channels + c]));
  }
  team.barrier();  // the leading member's workspace is its own again
}

template <class T>
void norm(const Team& team, const BatchNormGrad<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const Blocks<T> blocks(call.sizes);
  const Memory<T> memory(blocks, workspace);
  const Index channels = blocks.channels;
  const auto n = static_cast<double>(call.sizes.pixels);
  const auto scale = [&](Index c) { return scale_of(call.stats, call.gamma, channels, c); };
  NormGradArgs<T> args;
  args.mean = memory.table(0);
  args.scale = memory.table(1);
  args.offset = memory.table(2);
  args.slant = memory.table(3);
  args.act = call.act;
  args.slope = call.slope;
  spread(blocks, memory.table(0), [&](Index c) { return call.stats[c]; });
  spread(blocks, memory.table(1), scale);
  spread(blocks, memory.table(2),
         [&](Index c) { return call.sums ? scale(c) * static_cast<double>(call.sums[c]) / n : 0; });
  spread(blocks, memory.table(3), [&](Index c) {
    return call.sums ? scale(c) * static_cast<double>(call.stats[channels + c]) *
                           static_cast<double>(call.sums[channels + c]) / n
                     : 0;
  });
  team.deal(blocks.count(), [&](Index i) {
    for_rows(blocks, blocks.block(i), [&](Index at, Index rows, Index cols, bool) {
      args.dy = call.dy + at;
      args.x = call.x + at;
      args.saved = call.saved ? call.saved + at : nullptr;
      args.dx = call.dx + at;
      k.norm.grad(args, rows, cols);
    });
  });
}

#define GEMMULE_INSTANTIATE(T)                                        \
  template Index norm_workspace<T>(const NormSizes&);                 \
  template void norm<T>(const Team&, const BatchStats<T>&, void*);    \
  template void norm<T>(const Team&, const BatchNorm<T>&, void*);     \
  template void norm<T>(const Team&, const BatchNormSums<T>&, void*); \
  template void norm<T>(const Team&, const BatchNormGrad<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
