// What the files of the native benchmark share: one function each that registers its benchmarks, data, and
// the counters.
#pragma once
#include <benchmark/benchmark.h>

#include <chrono>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/tensor.h"

namespace gemmule::bench {

// Named KIND/.../TYPE/threads:COUNT; a team is measured by wall-clock time.
void register_team();         // team, ceiling
void register_gemm();         // gemm/SET/SHAPE
void register_packing();      // pack_a, pack_b
void register_elementwise();  // activation, activation_grad, softmax, ...

template <class T>
const char* type_name() {
  return sizeof(T) == 4 ? "f32" : "f64";
}
std::string threads_name(int threads);  // "/threads:2"
std::vector<int> thread_counts();       // 1, and the default

// `count` normal deviates. They repeat after a prime number of them, so that no two rows are alike.
template <class T>
class Data {
 public:
  explicit Data(Index count);
  T* get() const { return reinterpret_cast<T*>(memory_.data()); }

 private:
  Arena memory_;
};

// The FMA ceiling of the active ISA in operations per second, measured at the first call for each number of
// threads.
template <class T>
double ceiling(int threads);

// Repeats `body` for as long as the state asks and counts its GFLOP/s, and their share of the ceiling.
template <class T, class Body>
void count_flops(benchmark::State& state, double flops, int threads, Body&& body) {
  const double limit = ceiling<T>(threads);  // before the clock starts
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  for (auto _ : state) {
    body();
    benchmark::ClobberMemory();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double rate = flops * static_cast<double>(state.iterations()) / seconds;
  state.counters["GFLOP/s"] = rate * 1e-9;
  state.counters["% of ceiling"] = 100 * rate / limit;
}

// The same, counting elements per second and the bytes that they move.
template <class Body>
void count_elements(benchmark::State& state, Index elements, Index bytes, Body&& body) {
  for (auto _ : state) {
    body();
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * elements);
  state.SetBytesProcessed(state.iterations() * bytes);
}

}  // namespace gemmule::bench
