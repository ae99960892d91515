// What the machine offers: the FMA ceiling of every ISA, and the price of a team of threads.
#include "bench.h"
#include "core/threads.h"
#include "cpu/ceiling.h"
#include "cpu/dispatch.h"

namespace gemmule::bench {
namespace {

template <class T>
void measure_ceiling(benchmark::State& state, const std::string& isa, int threads) {
  const std::string active = cpu::active().name;
  cpu::force_isa(isa);
  double rate = 0;
  for (auto _ : state) rate = std::max(rate, cpu::fma_ceiling<T>(threads, 0.01));
  cpu::force_isa(active);
  state.counters["GFLOP/s"] = rate * 1e-9;
}

template <class T>
void register_ceiling(const std::string& isa, int threads) {
  const std::string name = "ceiling/" + isa + "/" + type_name<T>() + threads_name(threads);
  benchmark::RegisterBenchmark(name.c_str(), measure_ceiling<T>, isa, threads)->Iterations(10)->UseRealTime();
}

void wake(benchmark::State& state, int threads) {
  for (auto _ : state) run_team(threads, [](const Team& team) { benchmark::DoNotOptimize(team.rank()); });
}

// A hundred barriers under one wake.
void wait(benchmark::State& state, int threads) {
  constexpr int barriers = 100;
  for (auto _ : state)
    run_team(threads, [](const Team& team) {
      for (int i = 0; i < barriers; ++i) team.barrier();
    });
  state.SetItemsProcessed(state.iterations() * barriers);
}

}  // namespace

void register_team() {
  for (const int threads : thread_counts()) {
    for (const std::string& isa : cpu::supported_isas()) {
      register_ceiling<float>(isa, threads);
      register_ceiling<double>(isa, threads);
    }
    benchmark::RegisterBenchmark(("team/wake" + threads_name(threads)).c_str(), wake, threads)->UseRealTime();
    benchmark::RegisterBenchmark(("team/100_barriers" + threads_name(threads)).c_str(), wait, threads)
        ->UseRealTime();
  }
}

}  // namespace gemmule::bench
