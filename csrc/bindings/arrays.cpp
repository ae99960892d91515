#include "bindings/bindings.h"

namespace gemmule::bindings {

namespace {

std::string type_name(const py::array& array) { return py::str(array.dtype()).cast<std::string>(); }

}  // namespace

bool has_type(const py::array& array, DType type) {
  const py::dtype dtype = array.dtype(), wanted = numpy_dtype(type);
  return dtype.is(wanted) || dtype.equal(wanted);  // the same object, as almost always, or its equal
}

DType dtype_of(const py::array& array, const char* what) {
  for (DType type : {DType::f32, DType::f64, DType::i64})
    if (has_type(array, type)) return type;
  fail(ErrorKind::dtype, what, " is ", type_name(array), ", not float32 or float64");
}

py::dtype numpy_dtype(DType type) {
  switch (type) {
    case DType::f32:
      return py::dtype::of<float>();
    case DType::f64:
      return py::dtype::of<double>();
    case DType::i64:
      return py::dtype::of<std::int64_t>();
    case DType::u8:
      return py::dtype::of<std::uint8_t>();
  }
  fail(ErrorKind::dtype, "a dtype without a NumPy name");
}

Shape shape_of(const py::array& array) {
  return Shape(std::vector<Index>(array.shape(), array.shape() + array.ndim()));
}

void require_type(const py::array& array, DType type, const char* what) {
  if (!has_type(array, type)) fail(ErrorKind::dtype, what, " is ", type_name(array), ", not ", name_of(type));
}

void require_array(const py::array& array, DType type, const char* what, bool writable) {
  require_type(array, type, what);
  constexpr int wanted = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
  require((array.flags() & wanted) == wanted, ErrorKind::value, what, " is not C-contiguous and aligned");
  require(!writable || array.writeable(), ErrorKind::value, what, " is read-only");
}

Index require_batch(const py::array& array, DType type, const Shape& dims, const char* what, bool writable) {
  require_array(array, type, what, writable);
  const Shape shape = shape_of(array);
  const bool fits = shape.rank() == dims.rank() + 1 &&
                    std::equal(dims.dims().begin(), dims.dims().end(), shape.dims().begin() + 1);
  if (!fits) {
    std::string expected = "(N";
    for (Index d : dims.dims()) expected += ", " + std::to_string(d);
    fail(ErrorKind::shape, what, " has shape ", shape, ", not ", expected, dims.rank() ? ")" : ",)");
  }
  return shape[0];
}

py::array view(DType type, const Shape& shape, void* data, py::handle owner) {
  return py::array(numpy_dtype(type), shape.dims(), data, owner);
}

}  // namespace gemmule::bindings
