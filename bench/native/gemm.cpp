// cpu::gemm on the shape sets, called as gm.ops.gemm calls it, without Python.
#include "cpu/gemm.h"

#include "bench.h"
#include "cpu/dispatch.h"
#include "shapes.h"

namespace gemmule::bench {
namespace {

template <class T>
MatrixView<const T> matrix(const Data<T>& data, Index rows, Index cols, bool transposed) {
  if (transposed) return MatrixView<const T>{data.get(), cols, rows, rows, 1}.transposed();
  return {data.get(), rows, cols, cols, 1};
}

template <class T>
void measure(benchmark::State& state, const Shape& shape, int threads) {
  const auto& kernels = cpu::kernels<T>();
  const Data<T> a(shape.m * shape.k), b(shape.k * shape.n), c(shape.m * shape.n);
  cpu::Gemm<T> call;
  call.a = matrix(a, shape.m, shape.k, shape.trans_a);
  call.b = matrix(b, shape.k, shape.n, shape.trans_b);
  call.c = c.get();
  call.c_row = shape.n;
  const double flops =
      2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  const int members = cpu::gemm_members(call, threads);
  const Index each = round_up(cpu::gemm_workspace(kernels, call), alignment);
  const Arena workspace(checked_mul(each, members));
  state.SetLabel(cpu::gemm_path(kernels, call));
  count_flops<T>(state, flops, threads, [&] {
    run_team(members, [&](const Team& team) {
      cpu::gemm(kernels, team, call, workspace.data() + each * team.rank());
    });
  });
}

template <class T>
void register_shape(const Shape& shape) {
  for (const int threads : thread_counts()) {
    const std::string name = "gemm/" + shape.name + "/" + type_name<T>() + threads_name(threads);
    benchmark::RegisterBenchmark(name.c_str(), measure<T>, shape, threads)->UseRealTime();
  }
}

}  // namespace

void register_gemm() {
  for (const Shape& shape : shapes()) {
    register_shape<float>(shape);
    register_shape<double>(shape);
  }
}

}  // namespace gemmule::bench
