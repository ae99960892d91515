// Lets a long native run be interrupted: the leading member asks, about every 50 ms, whether to stop; the
// answer is read by all behind the next barrier, so that every member leaves at the same place. Between that
// and asking again lies another barrier: the answer must not change under a member that is late to read it.
#pragma once
#include <chrono>
#include <functional>

namespace gemmule {

class Poll {
 public:
  explicit Poll(std::function<bool()> interrupted)
      : interrupted_(std::move(interrupted)), next_(Clock::now() + period) {}

  // By the leading member, before a barrier.
  void ask() {
    if (stopped_ || Clock::now() < next_) return;
    stopped_ = interrupted_();
    next_ = Clock::now() + period;
  }
  // By every member, after it.
  bool stopped() const { return stopped_; }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds period{50};

  std::function<bool()> interrupted_;
  Clock::time_point next_;
  bool stopped_ = false;
};

}  // namespace gemmule
