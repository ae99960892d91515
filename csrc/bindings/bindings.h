// What the binding files share. pybind11 stays in this folder.
#pragma once
#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>

#include "core/tensor.h"
#include "graph/graph.h"
#include "plan/poll.h"

namespace gemmule::bindings {

namespace py = pybind11;

void bind_errors(py::module_& m);
void bind_machine(py::module_& m);
void bind_store(py::module_& m);
void bind_graph(py::module_& m);
void bind_programs(py::module_& m);
void bind_augment(py::module_& m);
void bind_training(py::module_& m);
void bind_updates(py::module_& m);
void bind_gemm(py::module_& m);
void bind_stacks(py::module_& m);
void bind_packed(py::module_& m);
void bind_ops(py::module_& m);
void bind_images(py::module_& m);
void bind_norms(py::module_& m);

// -- arrays: checked, never converted -----------------------------------------------------------------------

DType dtype_of(const py::array& array,
               const char* what);  // float32, float64 or int64 in native order; else DTypeError
py::dtype numpy_dtype(DType type);
bool has_type(const py::array& array, DType type);
void require_type(const py::array& array, DType type, const char* what);
Shape shape_of(const py::array& array);
// C-contiguous, aligned, of this type; `writable` for outputs. Errors name `what`.
void require_array(const py::array& array, DType type, const char* what, bool writable = false);
// The same, and of shape (rows, *dims); returns rows.
Index require_batch(const py::array& array, DType type, const Shape& dims, const char* what,
                    bool writable = false);

inline const std::byte* bytes(const py::array& array) { return static_cast<const std::byte*>(array.data()); }
inline std::byte* writable_bytes(py::array& array) { return static_cast<std::byte*>(array.mutable_data()); }

// A writable NumPy view of memory that `owner` keeps alive.
py::array view(DType type, const Shape& shape, void* data, py::handle owner);

// Ctrl-C, asked for with the GIL. After a run that it stopped, `raise_pending` raises what Python has
// pending.
Poll signal_poll();
[[noreturn]] void raise_pending();

// A graph as Python holds it, with the callables that its Python ops call.
struct PyGraph {
  explicit PyGraph(const std::string& dtype);
  Graph graph;
};

// More ops of graphs, with their functions on arrays.
void bind_layout(py::class_<PyGraph>& graph, py::module_& m);

}  // namespace gemmule::bindings
