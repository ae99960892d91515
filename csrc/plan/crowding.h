// Chooses between a team and one thread while a long run goes on. A team whose cores are taken by other
// processes waits a time slice at every barrier and can be twenty times slower than one thread; results do
// not depend on the choice.
#pragma once
#include <chrono>

#include "core/kinds.h"

namespace gemmule {

class Crowding {
 public:
  explicit Crowding(int team) : team_(team) {}

  // The number of members for the next slice of steps.
  int members() const { return alone_ ? 1 : team_; }
  void begin_slice() { start_ = Clock::now(), steps_ = 0; }
  // Called by the leading member after each step; true when the slice is over. `sleeps`: waits of this slice
  // that spinning did not bridge.
  bool ends_slice(long sleeps) {
    ++steps_;
    const Seconds time = Clock::now() - start_;
    if (alone_) {
      if (time < (trying_ ? trial : rest)) return false;
      const double each = time.count() / static_cast<double>(steps_);
      alone_ = trying_ &&
               each < team_time_;  // the trial won: a rest from the team; otherwise, or after the rest, back
      trying_ = false;
      return true;
    }
    if (team_ == 1 || time < window || steps_ < 4) return false;
    team_time_ = time.count() / static_cast<double>(steps_);
    const bool crowded = sleeps > steps_;
    if (!crowded) return time > rest;  // a new slice, so that trouble later is not averaged away
    alone_ = trying_ = true;
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  static constexpr Seconds window{0.02};  // several time slices of a scheduler
  static constexpr Seconds trial{0.005};
  static constexpr Seconds rest{0.25};

  const int team_;
  bool alone_ = false, trying_ = false;
  Clock::time_point start_;
  Index steps_ = 0;
  double team_time_ = 0;
};

}  // namespace gemmule
