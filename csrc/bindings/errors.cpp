// Error kinds become Python classes: gemmule.errors' own where the design has one, built-in ones elsewhere.
#include "bindings/bindings.h"
#include "core/error.h"

namespace gemmule::bindings {
namespace {

void raise(const char* class_name, const char* message) {
  PyErr_SetString(py::module_::import("gemmule.errors").attr(class_name).ptr(), message);
}

}  // namespace

void bind_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const Error& error) {
      switch (error.kind()) {
        case ErrorKind::shape:
          return raise("ShapeError", error.what());
        case ErrorKind::dtype:
          return raise("DTypeError", error.what());
        case ErrorKind::device:
          return raise("DeviceError", error.what());
        case ErrorKind::divergence:
          return raise("DivergenceError", error.what());
        case ErrorKind::value:
          return PyErr_SetString(PyExc_ValueError, error.what());
        case ErrorKind::memory:
          return PyErr_SetString(PyExc_MemoryError, error.what());
        case ErrorKind::state:
          return PyErr_SetString(PyExc_RuntimeError, error.what());
      }
    }
  });
}

Poll signal_poll() {
  return Poll([] {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) return false;
    // Left for raise_pending: no exception may be pending while other Python code runs on this thread.
    return true;
  });
}

void raise_pending() { throw py::error_already_set(); }

}  // namespace gemmule::bindings
