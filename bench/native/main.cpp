// The kernels measured from C++: `gemmule_bench --benchmark_filter=gemm/square`, and Google Benchmark's other
// options.
#include <algorithm>
#include <cstdio>
#include <map>
#include <random>

#include "bench.h"
#include "core/threads.h"
#include "cpu/ceiling.h"
#include "cpu/dispatch.h"

namespace gemmule::bench {

std::string threads_name(int threads) { return "/threads:" + std::to_string(threads); }

std::vector<int> thread_counts() {
  const int all = default_threads();
  return all == 1 ? std::vector{1} : std::vector{1, all};
}

template <class T>
Data<T>::Data(Index count) : memory_(checked_mul(std::max<Index>(count, 1), sizeof(T))) {
  static const std::vector<T> deviates = [] {
    std::mt19937_64 generator(0);
    std::normal_distribution<T> normal;
    std::vector<T> values(65537);
    for (T& value : values) value = normal(generator);
    return values;
  }();
  const auto period = static_cast<Index>(deviates.size());
  for (Index done = 0; done < count; done += period)
    std::copy_n(deviates.begin(), std::min(period, count - done), get() + done);
}
template class Data<float>;
template class Data<double>;

template <class T>
double ceiling(int threads) {
  static std::map<int, double> measured;
  double& rate = measured[threads];
  if (rate == 0)
    for (int round = 0; round < 10; ++round) rate = std::max(rate, cpu::fma_ceiling<T>(threads, 0.01));
  return rate;
}
template double ceiling<float>(int);
template double ceiling<double>(int);

namespace {

int run(int argc, char** argv) {
  // Half a second each, the library's default, would make an hour of all shapes. Options on the command line
  // come later and win.
  char brief[] = "--benchmark_min_time=0.05";
  std::vector<char*> arguments(argv, argv + argc);
  arguments.insert(arguments.begin() + 1, brief);
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  benchmark::AddCustomContext("isa", cpu::active().name);
  register_team();
  register_gemm();
  register_packing();
  register_elementwise();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace gemmule::bench

int main(int argc, char** argv) {
  try {
    return gemmule::bench::run(argc, argv);
  } catch (const std::exception& error) {  // GEMMULE_MAX_ISA names no ISA, the shapes cannot be read
    std::fprintf(stderr, "gemmule_bench: %s\n", error.what());
    return 1;
  }
}
