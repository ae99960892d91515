// What the binding of training shares with that of the other programs.
#pragma once
#include "bindings/bindings.h"
#include "plan/tally.h"

namespace gemmule::bindings {

// y is int64 (N,) with every label a class of the output; returns N.
Index require_labels(const py::array& y, const Shape& output, const char* op);
// float64 (rows,) each, where there is one.
SampleWeights weights_of(const std::optional<py::array>& loss, const std::optional<py::array>& metrics,
                         Index rows, const char* op);
std::vector<Metric> metrics_of(const std::vector<std::string>& names);

}  // namespace gemmule::bindings
