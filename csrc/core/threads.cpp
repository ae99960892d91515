#include "core/threads.h"

#include <omp.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace gemmule {
namespace {

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#if defined(__linux__)
// Physical cores in this process's affinity mask: two hardware threads of one core share its FMA units.
int cores_in_affinity() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return 0;
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                       "/topology/thread_siblings_list");
    std::string siblings;
    cores.insert(std::getline(file, siblings) ? siblings : std::to_string(cpu));
  }
  return static_cast<int>(cores.size());
}

// CPUs that the control group grants, 0 where it sets no limit. Version 2: "max 100000" or "150000 100000".
int cgroup_quota() {
  std::string quota;
  double period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> quota >> period) {
    if (quota == "max") return 0;
  } else {
    std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(v1_quota >> quota && v1_period >> period)) return 0;
  }
  const double limit = std::strtod(quota.c_str(), nullptr);
  return limit > 0 && period > 0 ? std::max(1, static_cast<int>(limit / period)) : 0;
}
#else
int cores_in_affinity() { return 0; }
int cgroup_quota() { return 0; }
#endif

std::atomic<int> requested{0};

// libgomp's workers do not survive a fork, and the child would wait for them for ever: dismiss them before
// it.
void survive_fork() {
  // OpenMP 5.0's call; GCC has it since version 9, though it states 4.5.
#if !defined(_WIN32) && (_OPENMP >= 201811 || (defined(__GNUC__) && !defined(__clang__)))
  static const int registered =
      pthread_atfork([] { omp_pause_resource_all(omp_pause_soft); }, nullptr, nullptr);
  (void)registered;
#endif
}

}  // namespace

void Barrier::wait(int members) {
  const std::uint32_t phase = phase_.load(std::memory_order_acquire);
  if (waiting_.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
    waiting_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
    return;
  }
  // About 50 us of spinning: longer than any wait between well-shared ops, shorter than a time slice.
  for (int spin = 0; spin < 4000; ++spin) {
    if (phase_.load(std::memory_order_acquire) != phase) return;
    pause();
  }
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  while (phase_.load(std::memory_order_acquire) == phase) phase_.wait(phase, std::memory_order_acquire);
  const auto slept = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
  asleep_.fetch_add(static_cast<Index>(slept.count()), std::memory_order_relaxed);
}

Hands::Hands(int members) : of_(std::make_unique<Hand[]>(static_cast<std::size_t>(members))) {}

Index Hands::take(int owner, std::uint32_t deal, Span share, bool first) {
  std::atomic<std::uint64_t>& left = of_[owner].left;
  std::uint64_t seen = left.load(std::memory_order_relaxed);
  for (;;) {
    const auto of_deal = static_cast<std::uint32_t>(seen >> 32);
    auto begin = static_cast<Index>(seen >> 16 & 0xffff), end = static_cast<Index>(seen & 0xffff);
    if (of_deal != deal) {
      // The owner may be late and this the first that anybody takes of the deal; or it went on to a later
      // one, when all of this were taken.
      if (static_cast<std::int32_t>(of_deal - deal) > 0) return -1;
      begin = share.begin, end = share.end;
    }
    if (begin >= end) return -1;
    const Index item = first ? begin++ : --end;
    const std::uint64_t rest = std::uint64_t{deal} << 32 | static_cast<std::uint64_t>(begin << 16 | end);
    if (left.compare_exchange_weak(seen, rest, std::memory_order_relaxed)) return item;
  }
}

Span Team::share(Index count, Index grain) const {
  const Index grains = (count + grain - 1) / grain;
  const Index each = grains / size_, left = grains % size_;
  const Index first = rank_ * each + std::min<Index>(rank_, left);
  const Index last = first + each + (rank_ < left ? 1 : 0);
  return {std::min(first * grain, count), std::min(last * grain, count)};
}

void run_team(int threads, const void* body, TeamBody call) {
  if (threads <= 1) {
    call(body, Team::serial());
    return;
  }
  survive_fork();
  Table table(threads);
  // The runtime may grant fewer than asked for.
#pragma omp parallel num_threads(threads)
  call(body, Team(omp_get_thread_num(), omp_get_num_threads(), &table));
}

int default_threads() {
  static const int count = [] {
    if (const char* wish = std::getenv("OMP_NUM_THREADS")) {
      const int threads = std::atoi(wish);  // of a list "4,2" the outermost level counts
      if (threads > 0) return std::min(threads, max_threads);
    }
    int cores = cores_in_affinity();
    if (cores == 0) cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    const int quota = cgroup_quota();
    return std::min(quota > 0 ? std::min(cores, quota) : cores, max_threads);
  }();
  return count;
}

int num_threads() {
  const int count = requested.load(std::memory_order_relaxed);
  return count > 0 ? count : default_threads();
}

void set_num_threads(int count) { requested = count; }

}  // namespace gemmule
