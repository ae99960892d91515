// One optimizer step over the parameters, committed whole or not at all.
#pragma once
#include <span>

#include "backend.h"

namespace gemmule {

class Stepper {
 public:
  // `updates`: steps this optimizer has done before, Adam's t - 1.
  Stepper(const Backend& backend, Rule rule, const UpdateArgs& args, Index updates,
          std::vector<ParameterRange> ranges);

  // Called by every member of a team, behind a barrier; the caller's next one comes before the weights are
  // read again. False, and nothing changed, where a gradient or the update is not finite, or where the
  // leading member finds the step not `sound`; `reason` then says which.
  bool step(const Team& team, bool sound);
  const char* reason() const { return reason_; }
  Index updates() const { return updates_; }

 private:
  // What the members find out together: each writes its figure, and behind a barrier all read the largest.
  enum Agreement { gradient, rehearsal, magnitude };
  double largest(const Team& team, Agreement about) const;
  UpdateArgs args_now() const;

  const Backend& backend_;
  Rule rule_;
  UpdateArgs args_;
  Index updates_;
  std::vector<ParameterRange> ranges_;
  bool always_rehearse_;  // settings under which no magnitude is safe
  const char* reason_ = "";
  struct alignas(64) Figure {
    double value;
  };
  // By agreement and rank. The magnitudes, of weights and slots after the last step, are unknown before the
  // first.
  std::vector<Figure> figures_[3];
};

}  // namespace gemmule
