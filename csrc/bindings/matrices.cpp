#include "bindings/matrices.h"

#include <chrono>
#include <cstdio>

#include "core/arena.h"
#include "plan/crowding.h"
#include "plan/program.h"

namespace gemmule::bindings {

std::byte* call_workspace(Index bytes) {
  thread_local Arena arena;
  if (arena.bytes() < bytes) arena = Arena(bytes);
  return arena.data();
}

template <class T>
void multiply(const cpu::IsaTable& isa, const cpu::Gemm<T>& call) {
  const cpu::Kernels<T>& kernels = kernels_of<T>(isa);
  const int worth = cpu::gemm_members(call, num_threads());
  const int members = worth == 1 || cores_are_crowded() ? 1 : worth;
  const Index each = round_up(cpu::gemm_workspace(kernels, call), alignment);
  std::byte* workspace = call_workspace(checked_mul(each, members));
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
                 "gemm", m, k, k, n, m, n, cpu::gemm_path(kernels, call), isa.name, members, seconds * 1e6,
                 flops / seconds * 1e-9);
  }
}
template void multiply<float>(const cpu::IsaTable&, const cpu::Gemm<float>&);
template void multiply<double>(const cpu::IsaTable&, const cpu::Gemm<double>&);

void require_result(DType type, Index m, Index n, const std::optional<py::array>& bias,
                    const std::optional<py::array>& out, double beta) {
  if (bias) {
    require_type(*bias, type, "gemm: bias");
    if (bias->ndim() != 1 || bias->shape(0) != n)
      fail(ErrorKind::shape, "gemm: bias ", shape_of(*bias), " does not fit ", n, " columns");
  }
  if (out) {
    require_type(*out, type, "gemm: out");
    if (out->ndim() != 2 || out->shape(0) != m || out->shape(1) != n)
      fail(ErrorKind::shape, "gemm: out ", shape_of(*out), " is not (", m, ", ", n, ")");
    if (!out->writeable()) fail(ErrorKind::value, "gemm: out is read-only");
  } else if (beta != 0) {
    fail(ErrorKind::value, "gemm: beta is ", beta, " without out to scale");
  }
}

bool overflows(DType type, Index m, Index n) {  // as NumPy counts where one of m and n is 0
  Index count, size;
  return __builtin_mul_overflow(std::max<Index>(m, 1), std::max<Index>(n, 1), &count) ||
         __builtin_mul_overflow(count, size_of(type), &size);
}

void make_adjacent(std::optional<py::array>& bias) {
  if (bias && (bias->strides(0) != bias->itemsize() || !in_elements(*bias))) bias = plain_copy(*bias);
}

ResultArray::ResultArray(DType type, Index m, Index n, const std::optional<py::array>& wanted,
                         std::initializer_list<const py::array*> inputs)
    : out_(wanted ? *wanted : py::array(numpy_dtype(type), Shape{m, n}.dims())),
      target_(out_),
      direct_(!wanted || has_plain_rows(out_)) {
  if (!wanted) return;
  const Extent extent(out_);
  for (const py::array* input : inputs) direct_ = direct_ && !(input && extent.overlaps(Extent(*input)));
  if (!direct_) target_ = plain_copy(out_);
}

py::array ResultArray::finish() {
  if (!direct_) out_[py::ellipsis()] = target_;
  return out_;
}

}  // namespace gemmule::bindings
