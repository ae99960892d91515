#include "plan/crowding.h"

#include <atomic>

namespace gemmule {
namespace {

constexpr std::chrono::duration<double> window{0.02};  // several time slices of a scheduler
constexpr std::chrono::duration<double> trial{0.005};
constexpr std::chrono::milliseconds rest{250};
// Of a team's time, on the average of those who wait for one. A core shared with another process takes half
// of it; long ops whose shares are uneven, or cores of different speed, much less.
constexpr double much_sleep = 0.25;
// A step as long as this loses less to waits, at its few barriers, than one step on one thread would cost.
constexpr double long_step = 0.05;

std::atomic<std::chrono::steady_clock::duration> crowded_until{std::chrono::steady_clock::duration::zero()};

}  // namespace

bool cores_are_crowded() {
  return std::chrono::steady_clock::now().time_since_epoch() < crowded_until.load(std::memory_order_relaxed);
}

bool Crowding::enter(Mode mode) {
  const bool changes = (mode == Mode::team) != (mode_ == Mode::team);
  mode_ = mode;
  steps_ = 0;
  asleep_ = 0;
  time_ = Seconds(0);
  return changes;
}

bool Crowding::ends_slice(Index asleep) {
  if (team_ == 1) return false;
  const auto now = Clock::now();
  time_ += now - mark_;
  mark_ = now;
  asleep_ += asleep - asleep_before_;
  asleep_before_ = asleep;
  ++steps_;
  const double step = time_.count() / static_cast<double>(steps_);
  switch (mode_) {
    case Mode::team:
      if (time_ < window || steps_ < 4) return false;
      team_step_ = step;
      return enter(step < long_step &&
                           1e-9 * static_cast<double>(asleep_) > much_sleep * (team_ - 1) * time_.count()
                       ? Mode::trial
                       : Mode::team);
    case Mode::trial:
      if (time_ < trial) return false;
      if (step >= team_step_) return enter(Mode::team);
      crowded_until = (now + rest).time_since_epoch();
      return enter(Mode::rest);
    case Mode::rest:
      return time_ < rest ? false : enter(Mode::team);
  }
  return false;
}

}  // namespace gemmule
