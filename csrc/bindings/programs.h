// What the binding of training shares with that of the other programs.
#pragma once
#include "bindings/bindings.h"
#include "plan/metrics.h"

namespace gemmule::bindings {

// y is int64 (N,) with every label a class of the output; returns N.
Index require_labels(const py::array& y, const Shape& output, const char* op);
std::vector<Metric> metrics_of(const std::vector<std::string>& names);

}  // namespace gemmule::bindings
