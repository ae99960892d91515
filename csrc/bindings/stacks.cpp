// Products of matrices and of stacks of them, broadcast against each other: the compiled half of
// gm.ops.matmul.
#include "bindings/matrices.h"
#include "cpu/dispatch.h"
#include "cpu/stack.h"
#include "plan/crowding.h"

namespace gemmule::bindings {
namespace {

// Of leading axis `axis` of a stack with `axes` of them: length, and stride in elements where it has more
// than one matrix. Axes are counted from the matrices outwards; missing ones have length 1.
struct StackedArray {
  explicit StackedArray(const py::array& x) : array(x), axes(x.ndim() - 2) {}
  Index count(Index axis) const { return axis < axes ? array.shape(axes - 1 - axis) : 1; }
  Index stride(Index axis) const {
    return count(axis) == 1 ? 0 : array.strides(axes - 1 - axis) / array.itemsize();
  }
  const py::array& array;
  Index axes;
};

std::vector<Index> result_shape(const py::array& a, const py::array& b) {
  const StackedArray left(a), right(b);
  std::vector<Index> shape;
  for (Index axis = std::max(left.axes, right.axes) - 1; axis >= 0; --axis) {
    const Index m = left.count(axis), n = right.count(axis);
    if (m != n && m != 1 && n != 1)
      fail(ErrorKind::shape, "matmul: the stacks of a ", shape_of(a), " and b ", shape_of(b),
           " do not broadcast");
    shape.push_back(m == 1 ? n : m);
  }
  shape.push_back(a.shape(a.ndim() - 2));
  shape.push_back(b.shape(b.ndim() - 1));
  return shape;
}

void require_bytes(const py::array& a, const py::array& b, const std::vector<Index>& shape) {
  Index size = a.itemsize();
  bool overflows = false;
  // Counted as NumPy does where a length is 0.
  for (Index n : shape) overflows |= __builtin_mul_overflow(size, std::max<Index>(n, 1), &size);
  if (overflows)
    fail(ErrorKind::shape, "matmul: a ", shape_of(a), ", b ", shape_of(b), ": the size of ", Shape(shape),
         " overflows");
}

// Every matrix of a stack in its own memory, as kernels write it.
bool is_plain(const py::array& out) {
  if (!has_plain_rows(out)) return false;
  for (py::ssize_t axis = 0; axis < out.ndim() - 2; ++axis)
    if (out.shape(axis) > 1 && out.strides(axis) == 0) return false;
  return true;
}

template <class T>
void run(const py::array& a, const py::array& b, py::array& out) {
  const StackedArray left(a), right(b), result(out);
  cpu::GemmStack<T> stack;
  stack.first.a = matrix<T>(a, false);
  stack.first.b = matrix<T>(b, false);
  stack.first.c = static_cast<T*>(out.mutable_data());
  stack.first.c_row = out.strides(out.ndim() - 2) / out.itemsize();
  stack.b_end = reinterpret_cast<const T*>(Extent(b).end);
  for (Index axis = result.axes - 1; axis >= 0; --axis)
    stack.axes.push_back({result.count(axis), left.stride(axis), right.stride(axis), result.stride(axis)});
  cpu::join_axes(stack);
  const auto& kernels = cpu::kernels<T>();
  const double flops = 2.0 * static_cast<double>(out.size()) * static_cast<double>(stack.first.a.cols);
  const int members = flops < serial_below || cores_are_crowded() ? 1 : num_threads();
  const Index each = round_up(cpu::stack_workspace(kernels, stack), alignment);
  std::byte* workspace = call_workspace(checked_mul(each, members));
  const py::gil_scoped_release release;
  run_team(members,
           [&](const Team& team) { cpu::gemm_stack(kernels, team, stack, workspace + each * team.rank()); });
}

// Whether the kernels can write the product of these types as the caller wants it; NumPy's rules know other
// ways.
bool is_kernels_work(const py::array& a, const py::array& b, const std::optional<py::array>& out) {
  const py::dtype type = a.dtype();
  const auto same = [&](const py::dtype& other) { return other.is(type) || other.equal(type); };
  return (same(numpy_dtype(DType::f32)) || same(numpy_dtype(DType::f64))) && same(b.dtype()) &&
         (!out || (same(out->dtype()) && out->writeable())) && a.ndim() > 1 && b.ndim() > 1;
}

std::optional<py::array> matmul(py::array a, py::array b, std::optional<py::array> wanted) {
  if (!is_kernels_work(a, b, wanted)) return std::nullopt;
  if (a.shape(a.ndim() - 1) != b.shape(b.ndim() - 2))
    fail(ErrorKind::shape, "matmul: inner dimensions differ: a ", shape_of(a), ", b ", shape_of(b));
  const std::vector<Index> shape = result_shape(a, b);
  if (wanted && !std::equal(shape.begin(), shape.end(), wanted->shape(), wanted->shape() + wanted->ndim()))
    return std::nullopt;
  require_bytes(a, b, shape);
  const DType type = a.itemsize() == size_of(DType::f32) ? DType::f32 : DType::f64;
  py::array out = wanted ? *wanted : py::array(numpy_dtype(type), shape);
  if (out.size() == 0) return out;
  if (!in_elements(a)) a = plain_copy(a);
  if (!in_elements(b)) b = plain_copy(b);
  const Extent extent(out);
  const bool direct =
      !wanted || (is_plain(out) && !extent.overlaps(Extent(a)) && !extent.overlaps(Extent(b)));
  py::array target = direct ? out : py::array(numpy_dtype(type), shape);
  if (type == DType::f32)
    run<float>(a, b, target);
  else
    run<double>(a, b, target);
  if (!direct) out[py::ellipsis()] = target;
  return out;
}

}  // namespace

void bind_stacks(py::module_& m) {
  m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::arg("out") = py::none());
}

}  // namespace gemmule::bindings
