// gm.ops.gemm: a kernel as a function on NumPy arrays of any layout.
#include "bindings/matrices.h"
#include "core/names.h"

namespace gemmule::bindings {
namespace {

template <class T>
void run(const cpu::Gemm<T>& call) {
  // A product too small for a team is over before another thread would have the GIL.
  std::optional<py::gil_scoped_release> release;
  if (cpu::gemm_members(call, 2) > 1) release.emplace();
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
      : is_none(object == Py_None),
        is_array(Py_TYPE(object) == py::detail::npy_api::get().PyArray_Type_),
        head(is_array ? py::detail::array_proxy(object) : nullptr) {}

  bool is(const PyObject* type, Index size) const {
    return holds(type) && head->nd == 2 && head->strides[0] % size == 0 && head->strides[1] % size == 0 &&
           head->dimensions[0] > 0 && head->dimensions[1] > 0;
  }
  // A vector in one piece; its length is dimensions[0].
  bool is_row(const PyObject* type, Index size) const {
    return holds(type) && head->nd == 1 && head->strides[0] == size;
  }
  template <class T>
  MatrixView<T> view(bool transpose) const {
    const auto size = static_cast<Index>(sizeof(T));
    const MatrixView<T> matrix{reinterpret_cast<T*>(head->data), head->dimensions[0], head->dimensions[1],
                               head->strides[0] / size, head->strides[1] / size};
    return transpose ? matrix.transposed() : matrix;
  }

  bool is_none, is_array;
  py::detail::PyArray_Proxy* head;

 private:
  bool holds(const PyObject* type) const {
    return is_array && head->descr == type && (head->flags & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  }
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

// Whatever is wrong with the arguments, and whatever would need a copy, is left to gemm.
struct PlainCall {
  PlainMatrix a, b, out, bias;
  double alpha, beta;
  bool trans_a, trans_b;
  Act act;
  double slope;

  bool is(const PyObject* type, Index size) const {
    return a.is(type, size) && b.is(type, size) && out.is(type, size) &&
           (bias.is_none || bias.is_row(type, size)) && alpha != 0 &&
           (out.head->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_);
  }

  // True when out = act(alpha op(a) op(b) + beta out + bias) has been computed.
  template <class T>
  bool multiply() const {
    cpu::Gemm<T> call;
    call.a = a.view<const T>(trans_a);
    call.b = b.view<const T>(trans_b);
    const MatrixView<T> c = out.view<T>(false);
    if (call.a.cols != call.b.rows || c.rows != call.a.rows || c.cols != call.b.cols) return false;
    if ((c.cols > 1 && c.col_stride != 1) || (c.rows > 1 && c.row_stride < c.cols)) return false;
    if (overlap(c, call.a) || overlap(c, call.b)) return false;
    if (!bias.is_none) {
      call.bias = reinterpret_cast<const T*>(bias.head->data);
      if (bias.head->dimensions[0] != c.cols || overlap(c, {call.bias, 1, c.cols, c.cols, 1})) return false;
    }
    call.c = c.data;
    call.c_row = c.row_stride;
    call.alpha = static_cast<T>(alpha);
    call.beta = static_cast<T>(beta);
    call.act = act;
    call.slope = static_cast<T>(slope);
    run(call);
    return true;
  }
};

// plain_gemm(a, b, out, alpha, beta, trans_a, trans_b, bias, activation, slope): out, or None where gemm has
// to be asked.
PyObject* plain_gemm(PyObject*, PyObject* const* args, Py_ssize_t count) {
  static const auto* f32 = py::detail::npy_api::get().PyArray_DescrFromType_(py::detail::npy_api::NPY_FLOAT_);
  static const auto* f64 =
      py::detail::npy_api::get().PyArray_DescrFromType_(py::detail::npy_api::NPY_DOUBLE_);
  if (count == 10 && PyFloat_CheckExact(args[3]) && PyFloat_CheckExact(args[4]) && PyBool_Check(args[5]) &&
      PyBool_Check(args[6]) && PyUnicode_CheckExact(args[8]) && PyFloat_CheckExact(args[9])) {
    try {
      const PlainCall call{
          PlainMatrix(args[0]),      PlainMatrix(args[1]),       PlainMatrix(args[2]),
          PlainMatrix(args[7]),      PyFloat_AS_DOUBLE(args[3]), PyFloat_AS_DOUBLE(args[4]),
          args[5] == Py_True,        args[6] == Py_True,         act_of(PyUnicode_AsUTF8(args[8])),
          PyFloat_AS_DOUBLE(args[9])};
      const bool done = call.is(f32, 4)   ? call.multiply<float>()
                        : call.is(f64, 8) ? call.multiply<double>()
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
    "out = act(alpha op(a) op(b) + beta out + bias) where the arrays can be used as they are, otherwise "
    "None."};

}  // namespace

void bind_gemm(py::module_& m) {
  m.def("gemm", &gemm, py::arg("a"), py::arg("b"), py::arg("out") = py::none(), py::arg("alpha") = 1.0,
        py::arg("beta") = 0.0, py::arg("trans_a") = false, py::arg("trans_b") = false,
        py::arg("bias") = py::none(), py::arg("activation") = "identity", py::arg("slope") = 1.0,
        py::arg("precision") = "full");
  m.add_object("plain_gemm", py::reinterpret_steal<py::object>(PyCFunction_New(&plain_gemm_method, nullptr)));
}

}  // namespace gemmule::bindings
