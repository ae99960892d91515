// gm.ops.gemm: a kernel as a function on NumPy arrays of any layout.
#include "cpu/gemm.h"

#include <chrono>
#include <cstdio>

#include "bindings/matrices.h"
#include "core/activations.h"
#include "core/names.h"
#include "cpu/dispatch.h"
#include "plan/crowding.h"
#include "plan/program.h"

namespace gemmule::bindings {

std::byte* call_workspace(Index bytes) {
  thread_local Arena arena;
  if (arena.bytes() < bytes) arena = Arena(bytes);
  return arena.data();
}

namespace {

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
  const auto& kernels = cpu::kernels<T>();
  const Index m = call.a.rows, n = call.b.cols, k = call.a.cols;
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(std::max<Index>(k, 1));
  const int members = flops < serial_below || cores_are_crowded() ? 1 : num_threads();
  const Index each = round_up(cpu::gemm_workspace(kernels, call), alignment);
  std::byte* workspace = call_workspace(checked_mul(each, members));
  const py::gil_scoped_release release;
  using Clock = std::chrono::steady_clock;
  const auto start = verbose() ? Clock::now() : Clock::time_point();
  run_team(members,
           [&](const Team& team) { cpu::gemm(kernels, team, call, workspace + each * team.rank()); });
  if (verbose()) {
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    std::fprintf(stderr,
                 "gemmule: %-15s %lldx%lld %lldx%lld -> %lldx%lld path=\"%s\" isa=%s threads=%d %.1f us %.1f "
                 "GFLOP/s\n",
                 "gemm", static_cast<long long>(m), static_cast<long long>(k), static_cast<long long>(k),
                 static_cast<long long>(n), static_cast<long long>(m), static_cast<long long>(n),
                 cpu::gemm_path(kernels, call), cpu::active().name, members, seconds * 1e6,
                 flops / seconds * 1e-9);
  }
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
  const bool direct = has_plain_rows(out) && !extent.overlaps(Extent(a)) && !extent.overlaps(Extent(b)) &&
                      !(bias && extent.overlaps(Extent(contiguous_bias)));
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

}  // namespace

void bind_gemm(py::module_& m) {
  m.def("gemm", &gemm, py::arg("a"), py::arg("b"), py::arg("out") = py::none(), py::arg("alpha") = 1.0,
        py::arg("beta") = 0.0, py::arg("trans_a") = false, py::arg("trans_b") = false,
        py::arg("bias") = py::none(), py::arg("activation") = "identity", py::arg("slope") = 1.0);
}

}  // namespace gemmule::bindings
