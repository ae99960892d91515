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

  // Called by every member of a team; ends with a barrier. False, and nothing changed, where
  // a gradient or the update is not finite; `reason` then says which.
  bool step(const Team& team);
  const char* reason() const { return reason_; }
  Index updates() const { return updates_; }

 private:
  // The largest of the members' figures, the same for every member.
  double largest(const Team& team, double mine, int agreement);
  UpdateArgs args_now() const;

  const Backend& backend_;
  Rule rule_;
  UpdateArgs args_;
  Index updates_;
  std::vector<ParameterRange> ranges_;
  // Largest magnitude among weights and slots after the last step; unknown before the first.
  double reach_;
  bool always_rehearse_;  // settings under which no magnitude is safe
  const char* reason_ = "";
  struct alignas(64) Figure {
    double value;
  };
  std::vector<Figure> figures_[3];  // one per agreement of a step, so that one barrier each is enough
};

}  // namespace gemmule
