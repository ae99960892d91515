#include "cpu/group_norm.h"

#include <algorithm>
#include <cmath>

#include "core/arena.h"
#include "cpu/norm_parts.h"

namespace gemmule::cpu {
namespace {

constexpr Index tables = 6;  // by column: four constants of a formula and two sums

// A sample of one pixel is a few rows, one a group. More pixels are normalized like those of a batch, with
// constants by column.
bool by_rows(const GroupNormSizes& sizes) { return sizes.pixels == 1; }

// How many samples a member takes at once: rows of 16 KB, so that dealing them costs nothing.
template <class T>
Index samples_at_once(const GroupNormSizes& sizes) {
  const Index bytes = sizes.width() * static_cast<Index>(sizeof(T));
  return by_rows(sizes) ? std::clamp<Index>(16 * 1024 / bytes, 1, 256) : 1;
}

// How samples are cut where sums go over them: at most 256 rows to an accumulator, and some thousand pixels.
Index samples_of_sums(const GroupNormSizes& sizes) {
  return by_rows(sizes) ? 256 : std::max<Index>(1, 1024 / sizes.pixels);
}

Index count_of(Index samples, Index each) { return (samples + each - 1) / each; }

// body(first sample, samples) of pieces of `each`, dealt to the team.
template <class Body>
void deal_samples(const Team& team, Index samples, Index each, const Body& body) {
  team.deal(count_of(samples, each), [&](Index i) { body(i * each, std::min(each, samples - i * each), i); });
}

// A member's memory: tables by column and two figures for each group. Behind them, in the leading member's,
// what all see: two figures for each piece of the samples and each column.
template <class T>
struct Memory {
  Memory(const GroupNormSizes& sizes, void* workspace)
      : blocks({sizes.pixels, sizes.width()}),
        width(round_up(blocks.width(), 16)),
        own(static_cast<T*>(workspace)),
        of_groups(reinterpret_cast<double*>(own + tables * width)),
        groups(round_up(sizes.groups, 8)) {}
  static Index bytes(const GroupNormSizes& sizes, bool sums) {
    const Blocks<T> blocks({sizes.pixels, sizes.width()});
    const Index own = checked_mul(tables * round_up(blocks.width(), 16), static_cast<Index>(sizeof(T)));
    const Index doubles =
        sums ? checked_mul(count_of(sizes.samples, samples_of_sums(sizes)), 2 * sizes.width()) : Index(0);
    const Index behind = checked_add(2 * round_up(sizes.groups, 8), round_up(doubles, 8));
    return checked_add(own, checked_mul(behind, static_cast<Index>(sizeof(double))));
  }
  T* table(Index i) const { return own + i * width; }
  double* first() const { return of_groups; }
  double* second() const { return of_groups + groups; }
  double* shared(const Team& team) const { return static_cast<double*>(team.common(of_groups + 2 * groups)); }

  Blocks<T> blocks;  // of the pixels of a sample
  Index width;
  T* own;
  double* of_groups;
  Index groups;
};

// table[c] = value(group, c) for the columns of a row.
template <class T, class Value>
void spread_groups(const Blocks<T>& blocks, const GroupNormSizes& sizes, T* table, const Value& value) {
  Index c = 0;
  for (Index g = 0; g < sizes.groups; ++g)
    for (Index k = 0; k < sizes.channels; ++k, ++c) table[c] = static_cast<T>(value(g, c));
  for (Index i = 1; i < blocks.beside; ++i) std::copy_n(table, blocks.channels, table + i * blocks.channels);
}

// body(group, c, sum of column c over the pixels beside each other)
template <class T, class Body>
void for_channels(const Blocks<T>& blocks, const GroupNormSizes& sizes, const T* sums, const Body& body) {
  Index c = 0;
  for (Index g = 0; g < sizes.groups; ++g)
    for (Index k = 0; k < sizes.channels; ++k, ++c) body(g, c, folded(blocks, sums, c));
}

// Sums by column over the pixels of a block, which `run` makes, for `take` after each of them.
template <class T, class Run, class Take>
void for_blocks(const Blocks<T>& blocks, T* sums, T* more, const Run& run, const Take& take) {
  for (Index i = 0; i < blocks.count(); ++i) {
    std::fill_n(sums, blocks.width(), T(0));
    std::fill_n(more, blocks.width(), T(0));
    for_rows(blocks, blocks.block(i), run);
    take();
  }
}

// A sample of many pixels: the groups' means, as first figures and by column, and 1 / sqrt(variance + eps) as
// second ones. As in BatchStats, squares are taken about a mean that is then corrected.
template <class T>
void statistics(const GroupNorm<T>& call, const Memory<T>& memory, const T* x, T* means) {
  const Kernels<T>& k = kernels<T>();
  const GroupNormSizes& sizes = call.sizes;
  const Blocks<T>& blocks = memory.blocks;
  T *const sums = memory.table(4), *const squares = memory.table(5);
  double *const first = memory.first(), *const second = memory.second();
  const auto n = static_cast<double>(sizes.pixels * sizes.channels);
  const auto clear = [&] {
    std::fill_n(first, sizes.groups, 0.0);
    std::fill_n(second, sizes.groups, 0.0);
  };
  clear();
  for_blocks(
      blocks, sums, squares,
      [&](Index at, Index rows, Index cols, bool begins) {
        k.element.sum_rows(rows, cols, x + at, cols, sums, !begins);
      },
      [&] { for_channels(blocks, sizes, sums, [&](Index g, Index, double sum) { first[g] += sum; }); });
  spread_groups(blocks, sizes, means, [&](Index g, Index) { return first[g] / n; });
  clear();
  for_blocks(
      blocks, sums, squares,
      [&](Index at, Index rows, Index cols, bool begins) {
        k.norm.square_sums(rows, cols, x + at, means, sums, squares, !begins);
      },
      [&] {
        for_channels(blocks, sizes, sums, [&](Index g, Index c, double sum) {
          first[g] += sum;
          second[g] += folded(blocks, squares, c);
        });
      });
  for (Index g = 0; g < sizes.groups; ++g) {
    const double apart = first[g] / n, variance = second[g] / n - apart * apart;
    first[g] = static_cast<double>(means[g * sizes.channels]) + apart;
    second[g] = 1 / std::sqrt((variance < 0 ? 0 : variance) + call.eps);  // NaN stays
  }
  spread_groups(blocks, sizes, means, [&](Index g, Index) { return first[g]; });
}

}  // namespace

template <class T>
Index group_norm_workspace(const GroupNormSizes& sizes, bool sums) {
  return Memory<T>::bytes(sizes, sums);
}

template <class T>
void norm(const Team& team, const GroupNorm<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const GroupNormSizes& sizes = call.sizes;
  const Index groups = sizes.groups, sample = sizes.pixels * sizes.width();
  const Memory<T> memory(sizes, workspace);
  const Blocks<T>& blocks = memory.blocks;
  const auto stats_of = [&](Index s) { return call.stats ? call.stats + s * 2 * groups : nullptr; };
  deal_samples(team, sizes.samples, samples_at_once<T>(sizes), [&](Index s, Index count, Index) {
    if (by_rows(sizes)) {
      const RowNormArgs<T> args{call.x + s * sample,
                                call.y + s * sample,
                                stats_of(s),
                                call.gamma,
                                call.beta,
                                groups,
                                call.eps,
                                call.act,
                                call.slope};
      return k.row_norm.normalize(args, count * groups, sizes.channels);
    }
    statistics(call, memory, call.x + s * sample, memory.table(0));
    const double* const inverse = memory.second();
    if (T* const stats = stats_of(s))
      for (Index g = 0; g < groups; ++g) {
        stats[2 * g] = static_cast<T>(memory.first()[g]);
        stats[2 * g + 1] = static_cast<T>(inverse[g]);
      }
    spread_groups(blocks, sizes, memory.table(1), [&](Index g, Index c) {
      return call.gamma ? static_cast<double>(call.gamma[c]) * inverse[g] : inverse[g];
    });
    spread_groups(blocks, sizes, memory.table(2),
                  [&](Index, Index c) { return call.beta ? call.beta[c] : T(0); });
    NormalizeArgs<T> args{};
    args.mean = memory.table(0);
    args.scale = memory.table(1);
    args.shift = memory.table(2);
    args.act = call.act;
    args.slope = call.slope;
    for (Index i = 0; i < blocks.count(); ++i)
      for_rows(blocks, blocks.block(i), [&](Index at, Index rows, Index cols, bool) {
        args.x = call.x + s * sample + at;
        args.y = call.y + s * sample + at;
        k.norm.normalize(args, rows, cols);
      });
  });
}

template <class T>
void norm(const Team& team, const GroupNormGrad<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const GroupNormSizes& sizes = call.sizes;
  const Index groups = sizes.groups, sample = sizes.pixels * sizes.width();
  const auto n = static_cast<double>(sizes.pixels * sizes.channels);
  const Memory<T> memory(sizes, workspace);
  const Blocks<T>& blocks = memory.blocks;
  const auto weight = [&](Index c) { return call.gamma ? static_cast<double>(call.gamma[c]) : 1.0; };
  const auto behind = [&](const T* p, Index at) { return p ? p + at : nullptr; };
  deal_samples(team, sizes.samples, samples_at_once<T>(sizes), [&](Index s, Index count, Index) {
    const Index start = s * sample;
    const T* const stats = call.stats + s * 2 * groups;
    if (by_rows(sizes)) {
      const RowNormGradArgs<T> args{call.dy + start, call.x + start, behind(call.saved, start),
                                    stats,           call.gamma,     call.dx + start,
                                    groups,          call.act,       call.slope};
      return k.row_norm.grad(args, count * groups, sizes.channels);
    }
    double *const offset = memory.first(), *const slant = memory.second();
    std::fill_n(offset, groups, 0.0);
    std::fill_n(slant, groups, 0.0);
    spread_groups(blocks, sizes, memory.table(0), [&](Index g, Index) { return stats[2 * g]; });
    NormSumsArgs<T> sums{};
    sums.mean = memory.table(0);
    sums.sums = memory.table(4);
    sums.products = memory.table(5);
    sums.act = call.act;
    sums.slope = call.slope;
    for_blocks(
        blocks, sums.sums, sums.products,
        [&](Index at, Index rows, Index cols, bool first) {
          sums.dy = call.dy + start + at;
          sums.x = call.x + start + at;
          sums.saved = behind(call.saved, start + at);
          k.norm.grad_sums(sums, rows, cols, !first);
        },
        [&] {
          for_channels(blocks, sizes, sums.sums, [&](Index g, Index c, double sum) {
            offset[g] += weight(c) * sum;
            slant[g] += weight(c) * folded(blocks, sums.products, c);
          });
        });
    for (Index g = 0; g < groups; ++g) {
      const auto inverse = static_cast<double>(stats[2 * g + 1]);
      offset[g] *= inverse / n;
      slant[g] *= inverse * inverse * inverse / n;
    }
    spread_groups(blocks, sizes, memory.table(1),
                  [&](Index g, Index c) { return weight(c) * static_cast<double>(stats[2 * g + 1]); });
    spread_groups(blocks, sizes, memory.table(2), [&](Index g, Index) { return offset[g]; });
    spread_groups(blocks, sizes, memory.table(3), [&](Index g, Index) { return slant[g]; });
    NormGradArgs<T> args{};
    args.mean = memory.table(0);
    args.scale = memory.table(1);
    args.offset = memory.table(2);
    args.slant = memory.table(3);
    args.act = call.act;
    args.slope = call.slope;
    for (Index i = 0; i < blocks.count(); ++i)
      for_rows(blocks, blocks.block(i), [&](Index at, Index rows, Index cols, bool) {
        args.dy = call.dy + start + at;
        args.x = call.x + start + at;
        args.saved = behind(call.saved, start + at);
        args.dx = call.dx + start + at;
        k.norm.grad(args, rows, cols);
      });
  });
}

template <class T>
void norm(const Team& team, const GroupNormSums<T>& call, void* workspace) {
  const Kernels<T>& k = kernels<T>();
  const GroupNormSizes& sizes = call.sizes;
  const Index groups = sizes.groups, width = sizes.width(), sample = sizes.pixels * width;
  const Memory<T> memory(sizes, workspace);
  const Blocks<T>& blocks = memory.blocks;
  const Index each = samples_of_sums(sizes);
  double* const shared = memory.shared(team);  // (pieces, 2, width)
  T *const sums = memory.table(0), *const products = memory.table(1);
  const auto behind = [&](const T* p, Index at) { return p ? p + at : nullptr; };
  deal_samples(team, sizes.samples, each, [&](Index first_sample, Index count, Index piece) {
    double *const sum = shared + piece * 2 * width, *const product = sum + width;
    if (by_rows(sizes)) {
      const Index start = first_sample * sample;
      const RowNormSumsArgs<T> args{call.dy + start,
                                    call.x + start,
                                    behind(call.saved, start),
                                    call.stats + first_sample * 2 * groups,
                                    sums,
                                    products,
                                    groups,
                                    call.act,
                                    call.slope};
      k.row_norm.sums(args, count, sizes.channels);
      std::copy_n(sums, width, sum);
      std::copy_n(products, width, product);
      return;
    }
    std::fill_n(sum, 2 * width, 0.0);
    for (Index s = first_sample; s < first_sample + count; ++s) {
      const Index start = s * sample;
      const T* const stats = call.stats + s * 2 * groups;
      spread_groups(blocks, sizes, memory.table(2), [&](Index g, Index) { return stats[2 * g]; });
      NormSumsArgs<T> args{};
      args.mean = memory.table(2);
      args.sums = sums;
      args.products = products;
      args.act = call.act;
      args.slope = call.slope;
      for_blocks(
          blocks, sums, products,
          [&](Index at, Index rows, Index cols, bool first) {
            args.dy = call.dy + start + at;
            args.x = call.x + start + at;
            args.saved = behind(call.saved, start + at);
            k.norm.grad_sums(args, rows, cols, !first);
          },
          [&] {
            for_channels(blocks, sizes, sums, [&](Index g, Index c, double of_block) {
              sum[c] += of_block;
              product[c] += folded(blocks, products, c) * static_cast<double>(stats[2 * g + 1]);
            });
          });
    }
  });
  team.barrier();
  const Span mine = team.share(width, 16);
  const Index pieces = count_of(sizes.samples, each);
  for (Index c = mine.begin; c < mine.end; ++c) {
    double sum = 0, product = 0;
    for (Index i = 0; i < pieces; ++i) {
      sum += shared[i * 2 * width + c];
      product += shared[(i * 2 + 1) * width + c];
    }
    call.sums[c] = static_cast<T>(sum);
    call.sums[width + c] = static_cast<T>(product);
  }
  team.barrier();  // the leading member's workspace is its own again
}

#define GEMMULE_INSTANTIATE(T)                                         \
  template Index group_norm_workspace<T>(const GroupNormSizes&, bool); \
  template void norm<T>(const Team&, const GroupNorm<T>&, void*);      \
  template void norm<T>(const Team&, const GroupNormGrad<T>&, void*);  \
  template void norm<T>(const Team&, const GroupNormSums<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
