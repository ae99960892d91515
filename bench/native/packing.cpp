// Packing one strip of A and one block of B, from either layout.
#include "bench.h"
#include "cpu/dispatch.h"

namespace gemmule::bench {
namespace {

constexpr Index far_apart = 1000;  // elements between the rows of the source: no power of two

// A strip of A of the tile's full height, as deep as a block.
template <class T>
void pack_a(benchmark::State& state, bool by_rows) {
  const auto& k = cpu::kernels<T>().gemm;
  const Index count = k.rows * k.depth_block;
  const Data<T> src(far_apart * k.depth_block), dst(count + k.lanes);
  count_elements(state, count, 2 * count * Index(sizeof(T)), [&] {
    k.pack_a(k.rows, k.depth_block, src.get(), by_rows ? far_apart : 1, by_rows ? 1 : far_apart, dst.get());
  });
}

// A whole block of B: what is packed at once and lies in L2.
template <class T>
void pack_b(benchmark::State& state, bool by_rows) {
  const auto& k = cpu::kernels<T>().gemm;
  const Index panel = k.vectors * k.lanes, cols = k.column_block / panel * panel;
  const Index count = cols * k.depth_block;
  const Data<T> src(far_apart * std::max(cols, k.depth_block)), dst(count + k.lanes);
  count_elements(state, count, 2 * count * Index(sizeof(T)), [&] {
    k.pack_b(k.depth_block, cols, panel, src.get(), by_rows ? far_apart : 1, by_rows ? 1 : far_apart,
             dst.get());
  });
}

template <class T>
void register_type() {
  for (const bool by_rows : {true, false}) {
    const std::string source = std::string(by_rows ? "/by_rows/" : "/by_columns/") + type_name<T>();
    benchmark::RegisterBenchmark(("pack_a" + source).c_str(), pack_a<T>, by_rows);
    benchmark::RegisterBenchmark(("pack_b" + source).c_str(), pack_b<T>, by_rows);
  }
}

}  // namespace

void register_packing() {
  register_type<float>();
  register_type<double>();
}

}  // namespace gemmule::bench
