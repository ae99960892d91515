#include "cpu/ceiling.h"

#include <chrono>
#include <numeric>
#include <vector>

#include "core/threads.h"
#include "cpu/dispatch.h"

namespace gemmule::cpu {

template <class T>
double fma_ceiling(int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto chains = kernels<T>().fma_chains;
  std::vector<double> rates(static_cast<std::size_t>(threads), 0.0);
  run_team(threads, [&](const Team& team) {
    chains(10000);  // wakes the unit up
    team.barrier();
    const auto start = Clock::now();
    double flops = 0, time = 0;
    while (time < seconds) {
      flops += chains(20000);
      time = std::chrono::duration<double>(Clock::now() - start).count();
    }
    rates[static_cast<std::size_t>(team.rank())] = flops / time;
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

template double fma_ceiling<float>(int, double);
template double fma_ceiling<double>(int, double);

}  // namespace gemmule::cpu
