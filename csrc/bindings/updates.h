// Optimizers as Python hands them over, for the training loop and for a step by hand.
#pragma once
#include <map>

#include "bindings/bindings.h"
#include "plan/optimizer.h"

namespace gemmule::bindings {

using Hyper = std::map<std::string, double>;
using PyMatrix = std::tuple<Index, Index, Index>;  // begin, rows, cols
using PyRange = std::tuple<std::shared_ptr<Store>, py::array, Index, Index, std::vector<PyMatrix>>;

// Checked: the settings' names, and that the slots hold what the rule keeps.
Optimizer optimizer_of(const std::string& rule, const Hyper& hyper, Index updates,
                       const std::vector<PyRange>& ranges);

}  // namespace gemmule::bindings
