#include "core/tensor.h"

namespace gemmule {

void fail_overflow(Index a, char op, Index b) {
  fail(ErrorKind::value, "size overflow: ", a, ' ', op, ' ', b);
}

Index size_of(DType type) { return type == DType::f32 ? 4 : type == DType::u8 ? 1 : 8; }

const char* name_of(DType type) {
  switch (type) {
    case DType::f32:
      return "float32";
    case DType::f64:
      return "float64";
    case DType::i64:
      return "int64";
    case DType::u8:
      return "uint8";
  }
  return "?";
}

DType dtype_of(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "float64") return DType::f64;
  fail(ErrorKind::dtype, "dtype '", name, "' is not one of float32, float64");
}

Index Shape::count() const {
  Index product = 1;
  for (Index d : dims_) {
    if (d < 0) fail(ErrorKind::shape, "shape ", str(), " has a negative dimension");
    product = checked_mul(product, d);
  }
  return product;
}

std::string Shape::str() const {
  std::string text = "(";
  for (std::size_t i = 0; i < dims_.size(); ++i) text += (i ? ", " : "") + std::to_string(dims_[i]);
  return text + (dims_.size() == 1 ? ",)" : ")");
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) { return out << shape.str(); }

}  // namespace gemmule
