// What is measured beside the loss, per sample, so that an epoch's figure is a mean over its samples.
#pragma once
#include <string>

#include "backend.h"

namespace gemmule {

enum class Metric : std::uint8_t { accuracy, mse, mae };

Metric metric_of(const std::string& name);

// The sum over the rows of `pred` of one metric. Accuracy: the largest output is the label's (or the largest
// target's); under a binary cross entropy, or hinge with targets -1 and 1, the share of outputs on the
// target's side of the threshold (probability 1/2, logit 0).
double sum_metric(Metric metric, Loss loss, const Operand& pred, const Operand& target);

}  // namespace gemmule
