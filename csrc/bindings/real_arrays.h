// What the bindings of kernels on arrays of one real type share.
#pragma once
#include "bindings/bindings.h"
#include "core/threads.h"

namespace gemmule::bindings {

// body(T{}) for the real type of `x`.
template <class Body>
void for_type(const py::array& x, const char* op, const Body& body) {
  switch (dtype_of(x, op)) {
    case DType::f32:
      return body(float{});
    case DType::f64:
      return body(double{});
    case DType::i64:
    case DType::u8:
      fail(ErrorKind::dtype, op, " is ", name_of(dtype_of(x, op)), ", not float32 or float64");
  }
}

template <class T>
const T* data(const py::array& x) {
  return static_cast<const T*>(x.data());
}
template <class T>
T* writable(py::array& x) {
  return static_cast<T*>(x.mutable_data());
}

inline void require_like(const py::array& array, const py::array& x, const char* what,
                         bool is_output = false) {
  require_array(array, dtype_of(x, what), what, is_output);
  require(shape_of(array) == shape_of(x), ErrorKind::shape, what, " has shape ", shape_of(array), ", not ",
          shape_of(x));
}

// Runs body(team) without the GIL, on a team where `work` operations are worth one.
template <class Body>
void on_team(double work, const Body& body) {
  const py::gil_scoped_release release;
  run_team(work < serial_below ? 1 : num_threads(), body);
}

}  // namespace gemmule::bindings
