// The one place that knows OpenMP. A team of threads runs one function, each with its rank; work is divided
// by `Team::share`, phases are separated by `Team::barrier`. Kernels are written for a member of a team and
// never open a region themselves.
#pragma once
#include <atomic>
#include <memory>

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
  // Called by each of so many members.
  void wait(int members);
  // Nanoseconds that members have slept so far, in waits that spinning did not bridge: much of it means that
  // another process holds a core of ours.
  Index asleep() const { return asleep_.load(std::memory_order_relaxed); }

 private:
  std::atomic<Index> asleep_{0};
  alignas(64) std::atomic<int> waiting_{0};
  alignas(64) std::atomic<std::uint32_t> phase_{0};
};

// Items that are still to be done, of the members' shares of a number of them: a member takes the first of
// its own, and once it has none left the last of another's. So members end together although their cores run
// at different speeds: a hardware thread beside one of them, or the clock, easily takes a fifth.
class Hands {
 public:
  explicit Hands(int members);
  // The number of a member's next deal. Members count for themselves, and alike.
  std::uint32_t begin_deal(int rank) { return ++of_[rank].deals; }
  // An item of `owner`, whose share of this deal is given: its first, or its last. -1: there is none left.
  Index take(int owner, std::uint32_t deal, Span share, bool first);

  static constexpr Index most_items = 0xffff;

 private:
  struct alignas(64) Hand {
    std::atomic<std::uint64_t> left{0};  // of which deal; from which item, to which: 32, 16, 16 bits
    std::uint32_t deals = 0;
  };
  std::unique_ptr<Hand[]> of_;
};

// What the members of a team share.
struct Table {
  explicit Table(int most_members) : hands(most_members) {}
  Barrier barrier;
  Hands hands;
  void* common = nullptr;
};

class Team {
 public:
  // A team without a table neither meets nor deals: its members keep to their shares.
  Team(int rank, int size, Table* table) : rank_(rank), size_(size), table_(table) {}
  static Team serial() { return Team(0, 1, nullptr); }

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool leads() const { return rank_ == 0; }
  void barrier() const {
    if (size_ > 1) table_->barrier.wait(size_);
  }
  Index asleep() const { return size_ > 1 ? table_->barrier.asleep() : 0; }
  // Whether the members meet and deal: a team of one, or one without a table, does not.
  bool meets() const { return size_ > 1 && table_; }
  // The leading member's pointer, for all. A barrier; another comes before it is called again.
  void* common(void* mine) const {
    if (size_ == 1) return mine;
    if (leads()) table_->common = mine;
    barrier();
    return table_->common;
  }
  // This member's part of [0, count), cut at multiples of `grain`.
  Span share(Index count, Index grain = 1) const;
  // body(i) for every i of [0, count), each by one member: its share, in order, and then what others have not
  // come to, unless there are more than Hands::most_items. Called by every member; ends without a barrier.
  template <class Body>
  void deal(Index count, const Body& body) const {
    if (!meets() || count > Hands::most_items) {
      const Span mine = share(count);
      for (Index i = mine.begin; i < mine.end; ++i) body(i);
      return;
    }
    const std::uint32_t number = table_->hands.begin_deal(rank_);
    for (int k = 0; k < size_; ++k) {
      const int owner = (rank_ + k) % size_;
      const Span theirs = Team(owner, size_, nullptr).share(count);
      for (Index i; (i = table_->hands.take(owner, number, theirs, k == 0)) >= 0;) body(i);
    }
  }

 private:
  int rank_, size_;
  Table* table_;
};

// Runs body on `threads` threads, or fewer where the runtime grants fewer; the caller is rank 0. Nothing may
// throw inside: everything that can fail is done before.
using TeamBody = void (*)(const void* body, const Team& team);
void run_team(int threads, const void* body, TeamBody call);
template <class Body>
void run_team(int threads, const Body& body) {
  run_team(threads, &body, [](const void* b, const Team& team) { (*static_cast<const Body*>(b))(team); });
}

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
// And so many for each op of a plan, after which the members meet: training 8-64-64-4 with 32 samples takes
// 25 us a step on two threads and 21 on one, with 128 (2.7e5 an op) 51 and 50 (Emerald Rapids).
inline constexpr double op_serial_below = 1.5e5;

}  // namespace gemmule
