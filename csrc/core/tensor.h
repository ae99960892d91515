// Sizes and views. Every size is an int64 whose products are checked: a shape that overflows is an error
// before it is an allocation.
#pragma once
#include <initializer_list>
#include <ostream>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/inline.h"
#include "core/kinds.h"

namespace gemmule {

[[noreturn]] void fail_overflow(Index a, char op, Index b);
// ErrorKind::value where the product, or the sum, leaves int64.
GM_INLINE Index checked_mul(Index a, Index b) {
  Index product;
  if (__builtin_mul_overflow(a, b, &product)) fail_overflow(a, '*', b);
  return product;
}
GM_INLINE Index checked_add(Index a, Index b) {
  Index sum;
  if (__builtin_add_overflow(a, b, &sum)) fail_overflow(a, '+', b);
  return sum;
}
GM_INLINE Index round_up(Index value, Index multiple) {
  return checked_add(value, multiple - 1) / multiple * multiple;
}

Index size_of(DType type);
const char* name_of(DType type);  // "float32"
DType dtype_of(const std::string& name);

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<Index> dims) : dims_(dims) {}
  explicit Shape(std::vector<Index> dims) : dims_(std::move(dims)) {}

  std::size_t rank() const { return dims_.size(); }
  Index operator[](std::size_t axis) const { return dims_[axis]; }
  Index back() const { return dims_.back(); }
  Index count() const;  // checked product; 1 for no dimensions
  const std::vector<Index>& dims() const { return dims_; }
  std::string str() const;  // "(64, 784)"
  bool operator==(const Shape& other) const = default;

 private:
  std::vector<Index> dims_;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);

// A matrix as it lies in memory; strides in elements, of any sign.
template <class T>
struct MatrixView {
  T* data = nullptr;
  Index rows = 0, cols = 0;
  Index row_stride = 0, col_stride = 0;

  MatrixView transposed() const { return {data, cols, rows, col_stride, row_stride}; }
};

}  // namespace gemmule
