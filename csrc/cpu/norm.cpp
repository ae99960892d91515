#include "cpu/norm.h"

#include <algorithm>
#include <cmath>

#include "core/arena.h"
#include "core/tensor.h"
#include "cpu/dispatch.h"
#include "cpu/norm_parts.h"

namespace gemmule::cpu {
namespace {

constexpr Index tables = 4;  // of constants by column, the most that a formula has

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

// A block's squares are taken about its own mean. What that was off by, since its sum was rounded, is the
// mean of the deviations (the corrected two-pass algorithm), and blocks are joined by Chan, Golub and LeVeque
// 1983: no mean, however large, cancels the variance.
template <class T>
void norm(const Team& team, const BatchStats<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const Blocks<T> blocks(call.sizes);
  const Memory<T> memory(blocks, workspace);
  const Index channels = blocks.channels;
  double* const means = memory.shared(team);  // (blocks, channels), then the squares alike
  double* const squares = means + blocks.count() * channels;
  T *const sums = memory.table(0), *const about = memory.table(1), *const of_squares = memory.table(2);
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
    std::fill_n(of_squares, blocks.width(), T(0));
    for_rows(blocks, block, [&](Index at, Index rows, Index cols, bool first) {
      k.norm.square_sums(rows, cols, call.x + at, about, sums, of_squares, !first);
    });
    for (Index c = 0; c < channels; ++c) {
      const double apart = folded(blocks, sums, c) / n;
      mean[c] = static_cast<double>(about[c]) + apart;
      square[c] = folded(blocks, of_squares, c) - n * apart * apart;
      if (square[c] < 0) square[c] = 0;  // NaN stays
    }
  });
  team.barrier();
  const Span mine = team.share(channels, 16);
  for (Index c = mine.begin; c < mine.end; ++c) {
    // The mean as a distance from the first block's, or every block would round it.
    double n = 0, mean = 0, square = 0;
    for (Index i = 0; i < blocks.count(); ++i) {
      const auto more = static_cast<double>(blocks.block(i).size());
      const double apart = means[i * channels + c] - means[c] - mean;
      square += squares[i * channels + c] + apart * apart * n * more / (n + more);
      n += more;
      mean += apart * more / n;
    }
    call.stats[c] = static_cast<T>(means[c] + mean);
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
