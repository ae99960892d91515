// The one place that knows OpenMP. A team of threads runs one function, each with its rank; work is divided
// by `Team::share`, phases are separated by `Team::barrier`. Kernels are written for a member of a team and
// never open a region themselves.
#pragma once
#include <atomic>
#include <functional>

#include "core/kinds.h"

namespace gemmule {

struct Span {
  Index begin, end;
  Index size() const { return end - begin; }
};

// Threads meet here. Waiting spins for a bounded time, then sleeps in the kernel: a thread that lost its core
// to another process must not be waited for at full power.
class Barrier {
 public:
  explicit Barrier(int members) : members_(members), waiting_(0), phase_(0) {}
  void wait();
  // Waits so far that spinning did not bridge: many of them mean that another process holds a core of ours.
  long sleeps() const { return sleeps_.load(std::memory_order_relaxed); }

 private:
  const int members_;
  std::atomic<long> sleeps_{0};
  alignas(64) std::atomic<int> waiting_;
  alignas(64) std::atomic<std::uint32_t> phase_;
};

class Team {
 public:
  Team(int rank, int size, Barrier* barrier) : rank_(rank), size_(size), barrier_(barrier) {}
  static Team serial() { return Team(0, 1, nullptr); }

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool leads() const { return rank_ == 0; }
  void barrier() const {
    if (size_ > 1) barrier_->wait();
  }
  long sleeps() const { return size_ > 1 ? barrier_->sleeps() : 0; }
  // This member's part of [0, count), cut at multiples of `grain`.
  Span share(Index count, Index grain = 1) const;

 private:
  int rank_, size_;
  Barrier* barrier_;
};

// Runs body on `threads` threads, or fewer where the runtime grants fewer; the caller is rank 0. Nothing may
// throw inside: everything that can fail is done before.
void run_team(int threads, const std::function<void(const Team&)>& body);

// More than any machine this is for; what per-member tables are sized by.
inline constexpr int max_threads = 256;

// The number of threads that gemmule uses, unless a plan finds its work too small for a team.
int num_threads();
void set_num_threads(int count);  // 0: back to the default
// min(physical cores in the affinity mask, cgroup quota); OMP_NUM_THREADS goes first where it is set.
int default_threads();

// Below this many floating-point operations (or bytes moved) a team costs more than it brings: waking two
// threads and one barrier take 1-2 us, in which one core does about 2e5 operations.
inline constexpr double serial_below = 4e5;

}  // namespace gemmule
