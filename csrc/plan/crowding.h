// Chooses between a team and one thread while long runs go on. A team whose cores are taken by other
// processes waits a time slice at every barrier and can be twenty times slower than one thread; results do
// not depend on the choice.
#pragma once
#include <chrono>

#include "core/kinds.h"

namespace gemmule {

// Whether training found the cores crowded within the last quarter of a second; prediction and evaluation
// then stay serial.
bool cores_are_crowded();

// The judgement of one trainer, which outlives its runs: an epoch may be shorter than what it takes to tell.
class Crowding {
 public:
  // Starts over where the team's size has changed.
  void adopt(int team) {
    if (team != team_) *this = Crowding(), team_ = team;
  }
  // The number of members for the next slice of steps.
  int members() const { return mode_ == Mode::team ? team_ : 1; }
  void begin_slice() {
    mark_ = Clock::now();
    asleep_before_ = 0;
  }
  // Called by the leading member after each step; true when the team should be formed anew. `asleep`: what
  // members slept in this slice, in nanoseconds.
  bool ends_slice(Index asleep);

 private:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  enum class Mode { team, trial, rest };

  bool enter(Mode mode);

  int team_ = 1;
  Mode mode_ = Mode::team;
  Clock::time_point mark_;
  Index asleep_before_ = 0;
  // Since the mode was entered or, with a team, since it was last judged.
  Index steps_ = 0;
  Index asleep_ = 0;
  Seconds time_{0};
  double team_step_ = 0;  // seconds, when it looked crowded
};

}  // namespace gemmule
