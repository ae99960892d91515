// What the bindings of products share: arrays of any strides as operands and results.
#pragma once
#include "bindings/bindings.h"
#include "core/arena.h"

namespace gemmule::bindings {

// The first and one past the last byte that an array's elements occupy.
struct Extent {
  explicit Extent(const py::array& array) : begin(bytes(array)), end(begin) {
    if (array.size() == 0) return;
    end += array.itemsize();
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
      const py::ssize_t reach = (array.shape(axis) - 1) * array.strides(axis);
      (reach < 0 ? begin : end) += reach;
    }
  }
  bool overlaps(const Extent& other) const { return begin < other.end && other.begin < end; }
  const std::byte *begin, *end;
};

// Aligned, and every stride a whole number of elements.
inline bool in_elements(const py::array& array) {
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
    if (array.strides(axis) % array.itemsize() != 0) return false;
  return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
}

inline py::array plain_copy(const py::array& array) { return array.attr("copy")("C").cast<py::array>(); }

// The last two axes, of the first matrix where there are more.
template <class T>
MatrixView<const T> matrix(const py::array& array, bool transpose) {
  const auto size = static_cast<Index>(sizeof(T));
  const py::ssize_t row = array.ndim() - 2, col = row + 1;
  const MatrixView<const T> view{static_cast<const T*>(array.data()), array.shape(row), array.shape(col),
                                 array.strides(row) / size, array.strides(col) / size};
  return transpose ? view.transposed() : view;
}

// Whether a kernel can write it as it is: rows of adjacent columns that do not overlap.
inline bool has_plain_rows(const py::array& out) {
  const py::ssize_t row = out.ndim() - 2, col = row + 1;
  return in_elements(out) && (out.shape(col) <= 1 || out.strides(col) == out.itemsize()) &&
         (out.shape(row) <= 1 || out.strides(row) >= out.shape(col) * out.itemsize());
}

// Kept between calls, one a thread: a fresh megabyte would cost more than a small product.
std::byte* call_workspace(Index bytes);

}  // namespace gemmule::bindings
