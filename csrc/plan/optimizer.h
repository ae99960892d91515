// One optimizer step over the parameters, committed whole or not at all.
#pragma once
#include <span>

#include "backend.h"

namespace gemmule {

struct Optimizer {
  Rule rule;
  UpdateArgs args;
  Index updates = 0;  // steps done before, Adam's t - 1
  std::vector<ParameterRange> ranges;
  // Learning rates of the updates to come, none above args.lr; nullptr: it is args.lr's for all.
  const double* rates = nullptr;
};

class Stepper {
 public:
  Stepper(const Backend& backend, const Optimizer& optimizer);

  // False for settings under which no magnitude of weights and gradients is safe: each step is tried out on
  // copies first.
  static bool settled(const Optimizer& optimizer);

  // Called by every member of a team, behind a barrier; the caller's next one comes before the weights are
  // read again. False, and nothing changed, where a gradient or the update is not finite, or where the
  // leading member finds the step not `sound`; `reason` then says which.
  bool step(const Team& team, bool sound);

  // The same in three calls, for gradients that are not made yet. First every member gives a bound of its
  // part: of them all, no element of a gradient exceeds `factor` * max(dz) * max(x), max(x) at least 1.
  // Where true, the gradients' ops may take the update along and report how far it reached; where false,
  // nothing may be changed before step() has looked at the gradients.
  bool bounded(const Team& team, double factor, double dz, double x, bool sound);
  UpdateArgs args_now() const;
  void stepped(const Team& team, double reach);

  Rule rule() const { return rule_; }
  const char* reason() const { return reason_; }

 private:
  // What the members find out together: each writes its figure, and behind a barrier all read the largest.
  enum Agreement { gradient, input, rehearsal, magnitude, agreements };
  double& mine(const Team& team, Agreement about) {
    return figures_[about][static_cast<std::size_t>(team.rank())].value;
  }
  double largest(const Team& team, Agreement about) const;

  const Backend& backend_;
  Rule rule_;
  UpdateArgs args_;
  const Index first_update_;
  Index updates_;
  const double* rates_;
  std::vector<ParameterRange> ranges_;
  bool settled_;
  const char* reason_ = "";
  struct alignas(64) Figure {
    double value;
  };
  // By agreement and rank. The magnitudes, of weights and slots after the last step, are unknown before the
  // first.
  std::vector<Figure> figures_[agreements];
};

}  // namespace gemmule
