// gm.ops.gemm: a kernel as a function on NumPy arrays of any layout.
#include "cpu/gemm.h"

#include <chrono>
#include <cstdio>

#include "bindings/bindings.h"
#include "core/activations.h"
#include "core/arena.h"
#include "core/names.h"
#include "cpu/dispatch.h"
#include "plan/crowding.h"
#include "plan/program.h"

namespace gemmule::bindings {
namespace {

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

bool in_elements(const py::array& array) {  // aligned, and every stride a whole number of elements
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
    if (array.strides(axis) % array.itemsize() != 0) return false;
  return (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) != 0;
}

py::array plain_copy(const py::array& array) { return array.attr("copy")("C").cast<py::array>(); }

template <class T>
MatrixView<const T> matrix(const py::array& array, bool transpose) {
  const auto size = static_cast<Index>(sizeof(T));
  const MatrixView<const T> view{static_cast<const T*>(array.data()), array.shape(0), array.shape(1),
                                 array.strides(0) / size, array.strides(1) / size};
  return transpose ? view.transposed() : view;
}

// Kept between calls: a fresh megabyte would cost more than a small product.
std::byte* call_workspace(Index bytes) {
  thread_local Arena arena;
  if (arena.bytes() < bytes) arena = Arena(bytes);
  return arena.data();
}

template <class T>
void run(const cpu::Gemm<T>& call) {
  const auto& kernels = cpu::kernels<T>();
  const int most = cpu::gemm_members(call, max_threads);
  const int members = most == 1 || cores_are_crowded() ? 1 : std::min(most, num_threads());
  const Index each = round_up(cpu::gemm_workspace(kernels, call), alignment);
  std::byte* workspace = call_workspace(checked_mul(each, members));
  // A product too small for a team is over before another thread would have the GIL.
  std::optional<py::gil_scoped_release> release;
  if (most > 1) release.emplace();
  using Clock = std::chrono::steady_clock;
  const auto start = verbose() ? Clock::now() : Clock::time_point();
  if (members == 1)
    cpu::gemm(kernels, Team::serial(), call, workspace);
  else
    run_team(members,
             [&](const Team& team) { cpu::gemm(kernels, team, call, workspace + each * team.rank()); });
  if (verbose()) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const auto m = static_cast<long long>(call.a.rows), k = static_cast<long long>(call.a.cols),
               n = static_cast<long long>(call.b.cols);
    const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
    std::fprintf(stderr,
                 "gemmule: %-15s %lldx%lld %lldx%lld -> %lldx%lld path=\"%s\" isa=%s threads=%d %.1f us %.1f "
                 "GFLOP/s\n",
                 "gemm", m, k, k, n, m, n, cpu::gemm_path(kernels, call), cpu::active().name, members,
                 seconds * 1e6, flops / seconds * 1e-9);
  }
}

template <class T>
void run(const py::array& a, const py::array& b, const py::array& bias, py::array& out, bool trans_a,
         bool trans_b, double alpha, double beta, Act act, double slope) {
  cpu::Gemm<T> call;
  call.a = matrix<T>(a, trans_a);
  call.b = matrix<T>(b, trans_b);
  // alpha = 0 does not read A and B: they may hold NaN.
  if (alpha == 0) call.a.cols = call.b.rows = 0;
  call.c = static_cast<T*>(out.mutable_data());
  call.c_row = out.strides(0) / static_cast<Index>(sizeof(T));
  call.alpha = static_cast<T>(alpha);
  call.beta = static_cast<T>(beta);
  call.bias = bias.ndim() == 1 ? static_cast<const T*>(bias.data()) : nullptr;
  call.act = act;
  call.slope = static_cast<T>(slope);
  run(call);
}

py::array gemm(py::array a, py::array b, std::optional<py::array> wanted, double alpha, double beta,
               bool trans_a, bool trans_b, std::optional<py::array> bias, const std::string& activation,
               double slope) {
  const Act act = act_of(activation);
  const DType type = dtype_of(a, "gemm: a");
  // Messages are made only where they are needed: a small product costs less than one of them.
  if (type == DType::i64) fail(ErrorKind::dtype, "gemm: a is int64, not float32 or float64");
  require_type(b, type, "gemm: b");
  if (a.ndim() != 2 || b.ndim() != 2)
    fail(ErrorKind::shape, "gemm: a ", shape_of(a), " and b ", shape_of(b), " are not matrices");
  const Index m = a.shape(trans_a), k = a.shape(!trans_a), inner = b.shape(trans_b), n = b.shape(!trans_b);
  if (k != inner)
    fail(ErrorKind::shape, "gemm: inner dimensions differ: op(a) (", m, ", ", k, "), op(b) (", inner, ", ", n,
         ")");
  if (bias) {
    require_type(*bias, type, "gemm: bias");
    if (bias->ndim() != 1 || bias->shape(0) != n)
      fail(ErrorKind::shape, "gemm: bias ", shape_of(*bias), " does not fit ", n, " columns");
  }
  if (wanted) {
    require_type(*wanted, type, "gemm: out");
    if (wanted->ndim() != 2 || wanted->shape(0) != m || wanted->shape(1) != n)
      fail(ErrorKind::shape, "gemm: out ", shape_of(*wanted), " is not (", m, ", ", n, ")");
    if (!wanted->writeable()) fail(ErrorKind::value, "gemm: out is read-only");
  } else if (beta != 0) {
    fail(ErrorKind::value, "gemm: beta is ", beta, " without out to scale");
  }
  Index count, size;  // of elements and bytes, counted as NumPy does where one of m and n is 0
  if (__builtin_mul_overflow(std::max<Index>(m, 1), std::max<Index>(n, 1), &count) ||
      __builtin_mul_overflow(count, size_of(type), &size))
    fail(ErrorKind::shape, "gemm: a ", shape_of(a), " and b ", shape_of(b), ": the size of (", m, ", ", n,
         ") overflows");
  if (!in_elements(a)) a = plain_copy(a);
  if (!in_elements(b)) b = plain_copy(b);
  py::array contiguous_bias = bias ? *bias : py::array(numpy_dtype(type), Shape{1, 1}.dims());
  if (bias && (contiguous_bias.strides(0) != contiguous_bias.itemsize() || !in_elements(contiguous_bias)))
    contiguous_bias = plain_copy(contiguous_bias);

  // The kernels write rows of adjacent columns that no input shares; any other `out` goes through such an
  // array.
  py::array out = wanted ? *wanted : py::array(numpy_dtype(type), Shape{m, n}.dims());
  const Extent extent(out);
  const bool direct = in_elements(out) && (n <= 1 || out.strides(1) == out.itemsize()) &&
                      (m <= 1 || out.strides(0) >= n * out.itemsize()) && !extent.overlaps(Extent(a)) &&
                      !extent.overlaps(Extent(b)) && !(bias && extent.overlaps(Extent(contiguous_bias)));
  py::array target = direct ? out : plain_copy(out);
  if (m > 0 && n > 0) {
    if (type == DType::f32)
      run<float>(a, b, contiguous_bias, target, trans_a, trans_b, alpha, beta, act, slope);
    else
      run<double>(a, b, contiguous_bias, target, trans_a, trans_b, alpha, beta, act, slope);
  }
  if (!direct) out[py::ellipsis()] = target;
  return out;
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
        py::arg("bias") = py::none(), py::arg("activation") = "identity", py::arg("slope") = 1.0);
  m.add_object("plain_gemm", py::reinterpret_steal<py::object>(PyCFunction_New(&plain_gemm_method, nullptr)));
}

}  // namespace gemmule::bindings
