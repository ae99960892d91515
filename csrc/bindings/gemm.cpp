// gm.ops.gemm: a kernel as a function on NumPy arrays of any layout.
#include "bindings/matrices.h"
#include "core/names.h"

namespace gemmule::bindings {
namespace {

template <class T>
void run(const py::array& a, const py::array& b, const std::optional<py::array>& bias, ResultArray& out,
         bool trans_a, bool trans_b, const Epilogue& epilogue) {
  cpu::Gemm<T> call;
  call.a = matrix<T>(a, trans_a);
  call.b = matrix<T>(b, trans_b);
  out.fill(call);
  epilogue.fill(call, bias);
  const py::gil_scoped_release release;
  multiply(cpu::active(), call);
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

}  // namespace

void bind_gemm(py::module_& m) {
  m.def("gemm", &gemm, py::arg("a"), py::arg("b"), py::arg("out") = py::none(), py::arg("alpha") = 1.0,
        py::arg("beta") = 0.0, py::arg("trans_a") = false, py::arg("trans_b") = false,
        py::arg("bias") = py::none(), py::arg("activation") = "identity", py::arg("slope") = 1.0,
        py::arg("precision") = "full");
}

}  // namespace gemmule::bindings
