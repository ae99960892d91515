#include "cpu/stack.h"

#include <algorithm>

namespace gemmule::cpu {
namespace {

// From here on what gemm() decides anew for each product is small beside the product itself.
inline constexpr Index most_small_multiplications = 32 * 32 * 32;

template <class T>
Index multiplications(const Gemm<T>& g) {
  return checked_mul(checked_mul(g.a.rows, g.b.cols), g.a.cols);
}

// Products of a few tiles each. Everything that depends on their shape alone is decided once.
template <class T>
class SmallGemm {
 public:
  // Vectors have paths of their own in gemm(), and so have sums that take several accumulators.
  static bool takes(const GemmKernels<T>& k, const Gemm<T>& g) {
    const Index depth = g.a.cols;
    return g.a.rows > 1 && g.b.cols > 1 && depth > 0 && depth <= k.depth_block &&
           (g.a.col_stride == 1 || g.a.row_stride == 1) && multiplications(g) <= most_small_multiplications;
  }
  static Index workspace(const GemmKernels<T>& k, const Gemm<T>& g) {
    return panel_elements(k, g.a.cols, g.b.cols);
  }

  SmallGemm(const GemmKernels<T>& k, const GemmStack<T>& stack, T* workspace)
      : k_(k), g_(stack.first), b_end_(stack.b_end), packed_(workspace) {
    rows_ = g_.a.rows;
    cols_ = g_.b.cols;
    kernels_ = g_.a.col_stride == 1 ? k.kernel_rows : k.kernel;
    panel_ = panel_width(k, cols_);
    tiles_ = (rows_ + k.rows - 1) / k.rows;
    // Whole vectors of B are read: past its columns too, which only its last matrix minds.
    reach_ = std::max<Index>(0, (g_.a.cols - 1) * g_.b.row_stride) + round_up(cols_, k.lanes);
    tile_.depth = tile_.a_run = tile_.a_chunk = g_.a.cols;
    tile_.a_jump = 0;
    tile_.a_row = g_.a.row_stride;
    tile_.a_step = g_.a.col_stride;
    tile_.c_row = g_.c_row;
    tile_.alpha = 1;
    tile_.beta = 0;
    tile_.bias = nullptr;
    tile_.act = Act::identity;
    tile_.slope = 1;
  }

  void operator()(const T* a, const T* b, T* c) {
    const bool in_place = g_.b.col_stride == 1 && b_end_ - b >= reach_;
    if (!in_place && b != packed_from_) {
      k_.pack_b(tile_.depth, cols_, panel_, b, g_.b.row_stride, g_.b.col_stride, packed_);
      packed_from_ = b;
    }
    tile_.b_step = in_place ? g_.b.row_stride : panel_;
    for (Index t = 0, i = 0; t < tiles_; ++t) {
      const Index height = (rows_ - i + tiles_ - t - 1) / (tiles_ - t);
      const TileKernel<T>* kernel = kernels_[height - 1];
      tile_.a = a + i * tile_.a_row;
      for (Index j = 0; j < cols_; j += panel_) {
        tile_.b = in_place ? b + j : packed_ + j * tile_.depth;
        tile_.c = c + i * tile_.c_row + j;
        tile_.cols = std::min(panel_, cols_ - j);
        kernel[(tile_.cols - 1) / k_.lanes](tile_);
      }
      i += height;
    }
  }

 private:
  const GemmKernels<T>& k_;
  const Gemm<T>& g_;
  const T* b_end_;
  T* packed_;
  const T* packed_from_ = nullptr;
  Index rows_, cols_, panel_, tiles_, reach_;
  const TileKernel<T> (*kernels_)[max_tile_vectors];
  TileArgs<T> tile_;
};

template <class T>
Index count_of(const GemmStack<T>& stack) {
  Index count = 1;
  for (const StackAxis& axis : stack.axes) count = checked_mul(count, axis.count);
  return count;
}

// multiply(a, b, c) for the products of `part`, numbered with the last axis as the fastest.
template <class T, class Multiply>
void for_each_product(const GemmStack<T>& stack, Span part, Multiply&& multiply) {
  const StackAxis inner = stack.axes.empty() ? StackAxis{1, 0, 0, 0} : stack.axes.back();
  for (Index s = part.begin; s < part.end;) {
    Index at = s % inner.count, left = s / inner.count;
    Index in_a = at * inner.a, in_b = at * inner.b, in_c = at * inner.c;
    for (std::size_t axis = stack.axes.size(); axis-- > 1;) {
      const StackAxis& outer = stack.axes[axis - 1];
      const Index index = left % outer.count;
      left /= outer.count;
      in_a += index * outer.a;
      in_b += index * outer.b;
      in_c += index * outer.c;
    }
    for (const Index stop = std::min(inner.count, at + part.end - s); at < stop; ++at, ++s) {
      multiply(stack.first.a.data + in_a, stack.first.b.data + in_b, stack.first.c + in_c);
      in_a += inner.a;
      in_b += inner.b;
      in_c += inner.c;
    }
  }
}

}  // namespace

template <class T>
void join_axes(GemmStack<T>& stack) {
  Gemm<T>& g = stack.first;
  std::vector<StackAxis> joined;
  for (const StackAxis& axis : stack.axes) {
    if (axis.count == 1) continue;
    if (!joined.empty()) {
      StackAxis& outer = joined.back();
      const Index n = axis.count;
      if (outer.a == n * axis.a && outer.b == n * axis.b && outer.c == n * axis.c) {
        outer = {outer.count * n, axis.a, axis.b, axis.c};
        continue;
      }
    }
    joined.push_back(axis);
  }
  if (g.a.rows == 1 && !joined.empty()) {  // the rows' strides are not read, and may be those of the stack
    g.a.row_stride = joined.back().a;
    g.c_row = joined.back().c;
  }
  if (!joined.empty() && joined.back().b == 0 && joined.back().a == g.a.rows * g.a.row_stride &&
      joined.back().c == g.a.rows * g.c_row && g.c_row >= g.b.cols) {
    g.a.rows *= joined.back().count;
    joined.pop_back();
  }
  stack.axes = std::move(joined);
}

template <class T>
Index stack_workspace(const Kernels<T>& kernels, const GemmStack<T>& stack) {
  if (!SmallGemm<T>::takes(kernels.gemm, stack.first)) return gemm_workspace(kernels, stack.first);
  return SmallGemm<T>::workspace(kernels.gemm, stack.first) * static_cast<Index>(sizeof(T));
}

template <class T>
void gemm_stack(const Kernels<T>& kernels, const Team& team, const GemmStack<T>& stack, void* workspace) {
  const Index count = count_of(stack);
  if (SmallGemm<T>::takes(kernels.gemm, stack.first)) {
    SmallGemm<T> multiply(kernels.gemm, stack, static_cast<T*>(workspace));
    for_each_product(stack, team.share(count), multiply);
    return;
  }
  // Members that make whole products meet least, but of a few large ones the last leave some idle.
  const bool whole =
      count >= 8 * team.size() || 2.0 * static_cast<double>(multiplications(stack.first)) < serial_below;
  const Team member = whole ? Team::serial() : team;
  Gemm<T> call = stack.first;
  for_each_product(stack, whole ? team.share(count) : Span{0, count}, [&](const T* a, const T* b, T* c) {
    call.a.data = a;
    call.b.data = b;
    call.c = c;
    gemm(kernels, member, call, workspace);
  });
}

#define GEMMULE_INSTANTIATE(T)                                               \
  template void join_axes<T>(GemmStack<T>&);                                 \
  template Index stack_workspace<T>(const Kernels<T>&, const GemmStack<T>&); \
  template void gemm_stack<T>(const Kernels<T>&, const Team&, const GemmStack<T>&, void*);
GEMMULE_INSTANTIATE(float)
GEMMULE_INSTANTIATE(double)
#undef GEMMULE_INSTANTIATE

}  // namespace gemmule::cpu
