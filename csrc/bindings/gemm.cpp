// gm.ops.gemm: a kernel as a function on NumPy arrays of any layout.
#include "bindings/matrices.h"
#include "core/names.h"

namespace gemmule::bindings {
namespace {

template <class T>
void run(const cpu::Gemm<T>& call) {
  // A product too small for a team is over before another thread would have the GIL.
  std::optional<py::gil_scoped_release> release;
  if (cpu::gemm_members(call, max_threads) > 1) release.emplace();
  multiply(cpu::active(), call);
}

template <class T>
void run(const py::array& a, const py::array& b, const std::optional<py::array>& bias, ResultArray& out,
         bool trans_a, bool trans_b, const Epilogue& epilogue) {
  cpu::Gemm<T> call;
  call.a = matrix<T>(a, trans_a);
  call.b = matrix<T>(b, trans_b);
  out.fill(call);
  epilogue.fill(call, bias);
  run(call);
}

py::array gemm(py::array a, py::array b, const std::optional<py::array>& wanted, double alpha, double beta,
               bool trans_a, bool trans_b, std::optional<py::array> bias, const std::string& activation,
               double slope, const std::string& precision) {
  const Epilogue epilogue{alpha, beta, act_of(activation), slope, precision_of(precision)};
  const DType type = dtype_of(a, "gemm: a");
  // Messages are made only where they are needed: a small product costs less than one of them.
  if (type == DType::i64) fail(ErrorKind::dtype, "gemm: a is int64, not float32 or float64");
  if (epilogue.precision == Precision::bf16 && type != DType::f32)
    fail(ErrorKind::dtype, "gemm: precision 'bf16' is for float32, not ", name_of(type));
  require_type(b, type, "gemm: b");
  if (a.ndim() != 2 || b.ndim() != 2)
    fail(ErrorKind::shape, "gemm: a ", shape_of(a), " and b ", shape_of(b), " are not matrices");
  const Index m = a.shape(trans_a), k = a.shape(!trans_a), inner = b.shape(trans_b), n = b.shape(!trans_b);
  if (k != inner)
    fail(ErrorKind::shape, "gemm: inner dimensions differ: op(a) (", m, ", ", k, "), op(b) (", inner, ", ", n,
         ")");
  require_result(type, m, n, bias, wanted, beta);
  if (overflows(type, m, n))
    fail(ErrorKind::shape, "gemm: a ", shape_of(a), " and b ", shape_of(b), ": the size of (", m, ", ", n,
         ") overflows");
  if (!in_elements(a)) a = plain_copy(a);
  if (!in_elements(b)) b = plain_copy(b);
  make_adjacent(bias);
  ResultArray out(type, m, n, wanted, {&a, &b, bias ? &*bias : nullptr});
  if (m > 0 && n > 0) {
    if (type == DType::f32)
      run<float>(a, b, bias, out, trans_a, trans_b, epilogue);
    else
      run<double>(a, b, bias, out, trans_a, trans_b, epilogue);
  }
  return out.finish();
}

// ---- the call that needs no preparation ----

// A 2-D array of NumPy's own, as its header says; pybind11's accessors cost more than a small product.
struct PlainMatrix {
  explicit PlainMatrix(PyObject* object)
      : is_array(Py_TYPE(object) == py::detail::npy_api::get().PyArray_Type_),
        head(is_array ? py::detail::array_proxy(object) : nullptr) {}

  bool is(const PyObject* type, Index size) const {
    return is_array && head->descr == type && head->nd == 2 &&
           (head->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_) && head->strides[0] % size == 0 &&
           head->strides[1] % size == 0 && head->dimensions[0] > 0 && head->dimensions[1] > 0;
  }
  template <class T>
  MatrixView<T> view(bool transpose) const {
    const auto size = static_cast<Index>(sizeof(T));
    const MatrixView<T> matrix{reinterpret_cast<T*>(head->data), head->dimensions[0], head->dimensions[1],
                               head->strides[0] / size, head->strides[1] / size};
    return transpose ? matrix.transposed() : matrix;
  }

  bool is_array;
  py::detail::PyArray_Proxy* head;
};

template <class T>
bool overlap(const MatrixView<T>& x, const MatrixView<const T>& y) {
  const auto extent = [](const auto& v) {
    const Index down = (v.rows - 1) * v.row_stride, right = (v.cols - 1) * v.col_stride;
    return std::pair(v.data + std::min<Index>(down, 0) + std::min<Index>(right, 0),
                     v.data + std::max<Index>(down, 0) + std::max<Index>(right, 0));
  };
  const auto [x0, x1] = extent(x);
  const auto [y0, y1] = extent(y);
  return x0 <= y1 && y0 <= x1;
}

// True when out = alpha op(a) op(b) + beta out has been computed. Whatever is wrong with the arguments, and
// whatever would need a copy, is left to gemm.
template <class T>
bool multiply_plain(const PlainMatrix& a, const PlainMatrix& b, const PlainMatrix& out, double alpha,
                    double beta, bool trans_a, bool trans_b) {
  cpu::Gemm<T> call;
  call.a = a.view<const T>(trans_a);
  call.b = b.view<const T>(trans_b);
  const MatrixView<T> c = out.view<T>(false);
  if (call.a.cols != call.b.rows || c.rows != call.a.rows || c.cols != call.b.cols) return false;
  if ((c.cols > 1 && c.col_stride != 1) || (c.rows > 1 && c.row_stride < c.cols)) return false;
  if (overlap(c, call.a) || overlap(c, call.b)) return false;
  call.c = c.data;
  call.c_row = c.row_stride;
  call.alpha = static_cast<T>(alpha);
  call.beta = static_cast<T>(beta);
  run(call);
  return true;
}

// plain_gemm(a, b, out, alpha, beta, trans_a, trans_b): out, or None where gemm has to be asked.
PyObject* plain_gemm(PyObject*, PyObject* const* args, Py_ssize_t count) {
  static const auto* f32 = py::detail::npy_api::get().PyArray_DescrFromType_(py::detail::npy_api::NPY_FLOAT_);
  static const auto* f64 =
      py::detail::npy_api::get().PyArray_DescrFromType_(py::detail::npy_api::NPY_DOUBLE_);
  if (count == 7 && PyFloat_CheckExact(args[3]) && PyFloat_CheckExact(args[4]) && PyBool_Check(args[5]) &&
      PyBool_Check(args[6])) {
    const PlainMatrix a(args[0]), b(args[1]), out(args[2]);
    const double alpha = PyFloat_AS_DOUBLE(args[3]), beta = PyFloat_AS_DOUBLE(args[4]);
    const bool writable =
        out.is_array && (out.head->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) && alpha != 0;
    const auto all_are = [&](const PyObject* type, Index size) {
      return writable && a.is(type, size) && b.is(type, size) && out.is(type, size);
    };
    try {
      const bool done =
          all_are(f32, 4)
              ? multiply_plain<float>(a, b, out, alpha, beta, args[5] == Py_True, args[6] == Py_True)
          : all_are(f64, 8)
              ? multiply_plain<double>(a, b, out, alpha, beta, args[5] == Py_True, args[6] == Py_True)
              : false;
      if (done) return Py_NewRef(args[2]);
    } catch (const std::exception&) {
      // gemm meets it again, and says so.
    }
  }
  Py_RETURN_NONE;
}

PyMethodDef plain_gemm_method = {
    "plain_gemm", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(plain_gemm)), METH_FASTCALL,
    "out = alpha op(a) op(b) + beta out where the arrays can be used as they are, otherwise None."};

}  // namespace

void bind_gemm(py::module_& m) {
  m.def("gemm", &gemm, py::arg("a"), py::arg("b"), py::arg("out") = py::none(), py::arg("alpha") = 1.0,
        py::arg("beta") = 0.0, py::arg("trans_a") = false, py::arg("trans_b") = false,
        py::arg("bias") = py::none(), py::arg("activation") = "identity", py::arg("slope") = 1.0,
        py::arg("precision") = "full");
  m.add_object("plain_gemm", py::reinterpret_steal<py::object>(PyCFunction_New(&plain_gemm_method, nullptr)));
}

}  // namespace gemmule::bindings
