#include "plan/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gemmule {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// Within these magnitudes no rule can leave float32's range (3.4e38) in one step: the largest intermediate is
// Adam's squared gradient with decay, (1e9 + 1e6 * 1e12)^2. Beyond them a step is rehearsed on copies first.
constexpr double safe_gradient = 1e9, safe_reach = 1e12, safe_setting = 1e6;

}  // namespace

Stepper::Stepper(const Backend& backend, const Optimizer& optimizer)
    : backend_(backend),
      rule_(optimizer.rule),
      args_(optimizer.args),
      first_update_(optimizer.updates),
      updates_(optimizer.updates),
      rates_(optimizer.rates),
      ranges_(optimizer.ranges) {
  for (auto& figures : figures_) figures.assign(max_threads, Figure{infinity});
  for (const ParameterRange& range : ranges_)
    require(range.begin >= 0 && range.begin <= range.end && range.end <= range.store->size(),
            ErrorKind::value, "update: range [", range.begin, ", ", range.end, ") leaves a store of ",
            range.store->size());
  settled_ = settled(optimizer);
}

bool Stepper::settled(const Optimizer& optimizer) {
  const UpdateArgs& a = optimizer.args;
  return a.lr <= safe_setting && a.weight_decay <= safe_setting && a.momentum <= 1 &&
         (optimizer.rule == Rule::sgd || a.eps > 0);
}

double Stepper::largest(const Team& team, Agreement about) const {
  double all = 0;
  for (int i = 0; i < team.size(); ++i)
    all = std::max(all, figures_[about][static_cast<std::size_t>(i)].value);
  return all;
}

UpdateArgs Stepper::args_now() const {
  UpdateArgs now = args_;
  if (rates_) now.lr = rates_[updates_ - first_update_];
  const double t = static_cast<double>(updates_ + 1);
  now.correction1 = 1 - std::pow(args_.beta1, t);
  now.correction2 = 1 - std::pow(args_.beta2, t);
  return now;
}

bool Stepper::bounded(const Team& team, double factor, double dz, double x, bool sound) {
  const double reach = largest(team, magnitude);
  mine(team, gradient) = sound ? dz : infinity;
  mine(team, input) = x;
  team.barrier();
  return factor * largest(team, gradient) * std::max(largest(team, input), 1.0) <= safe_gradient &&
         reach <= safe_reach;
}

void Stepper::stepped(const Team& team, double reach) {
  // Read at the next step, behind the caller's barrier.
  mine(team, magnitude) = settled_ ? reach : infinity;
  if (team.leads()) ++updates_;
}

bool Stepper::step(const Team& team, bool sound) {
  const UpdateArgs now = args_now();
  double reach = largest(team, magnitude);
  double figure = sound ? 0 : infinity;
  for (const ParameterRange& range : ranges_)
    figure = std::max(figure, backend_.max_gradient(range.store->type(), range, team));
  mine(team, gradient) = figure;
  team.barrier();
  if (largest(team, gradient) == infinity) {
    if (team.leads()) reason_ = sound ? "gradient" : "loss";
    return false;
  }
  if (largest(team, gradient) > safe_gradient || reach > safe_reach) {
    figure = 0;
    for (const ParameterRange& range : ranges_)
      figure = std::max(figure, backend_.rehearse(range.store->type(), rule_, now, range, team));
    mine(team, rehearsal) = figure;
    team.barrier();
    if (largest(team, rehearsal) == infinity) {
      if (team.leads()) reason_ = "update";
      return false;
    }
  }
  reach = 0;
  for (const ParameterRange& range : ranges_)
    reach = std::max(reach, backend_.update(range.store->type(), rule_, now, range, team));
  stepped(team, reach);
  return true;
}

}  // namespace gemmule
