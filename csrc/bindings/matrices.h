// What the bindings of products share: arrays of any strides as operands and results.
#pragma once
#include "bindings/bindings.h"
#include "cpu/dispatch.h"
#include "cpu/gemm.h"

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

template <class T>
const cpu::Kernels<T>& kernels_of(const cpu::IsaTable& isa) {
  if constexpr (sizeof(T) == sizeof(float))
    return isa.f32;
  else
    return isa.f64;
}

// A product on the team that it deserves; to be called without the GIL.
template <class T>
void multiply(const cpu::IsaTable& isa, const cpu::Gemm<T>& call);

// What gemm() does beside A and B.
struct Epilogue {
  double alpha, beta;
  Act act;
  double slope;
  Precision precision = Precision::full;
  template <class T>
  void fill(cpu::Gemm<T>& call, const std::optional<py::array>& bias) const {
    // alpha = 0 does not read A and B: they may hold NaN.
    if (alpha == 0) call.a.cols = call.b.rows = 0;
    call.alpha = static_cast<T>(alpha);
    call.beta = static_cast<T>(beta);
    call.bias = bias ? static_cast<const T*>(bias->data()) : nullptr;
    call.act = act;
    call.slope = static_cast<T>(slope);
    call.precision = precision;
  }
};

// Of a product (m, n): whether bias and `out` fit it, and whether its bytes can be counted.
void require_result(DType type, Index m, Index n, const std::optional<py::array>& bias,
                    const std::optional<py::array>& out, double beta);
bool overflows(DType type, Index m, Index n);
// As the kernels read it, adjacent elements.
void make_adjacent(std::optional<py::array>& bias);

// The kernels write rows of adjacent columns that no input shares; any other `out` goes through such an
// array.
class ResultArray {
 public:
  ResultArray(DType type, Index m, Index n, const std::optional<py::array>& wanted,
              std::initializer_list<const py::array*> inputs);  // nullptr: no such input
  template <class T>
  void fill(cpu::Gemm<T>& call) {
    call.c = static_cast<T*>(target_.mutable_data());
    call.c_row = target_.strides(0) / static_cast<Index>(sizeof(T));
  }
  py::array finish();

 private:
  py::array out_, target_;
  bool direct_;
};

}  // namespace gemmule::bindings
