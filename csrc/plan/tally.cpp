#include "plan/tally.h"

namespace gemmule {
namespace {

// Row by row, so that what weighs nothing is not looked at.
double weighted_metric(Metric metric, Loss loss, Operand pred, Operand target, const double* weights) {
  const Index rows = pred.rows;
  const Index target_bytes = target.cols * size_of(target.type), pred_bytes = pred.cols * size_of(pred.type);
  pred.rows = target.rows = 1;
  double sum = 0;
  for (Index i = 0; i < rows; ++i) {
    if (weights[i] != 0) sum += weights[i] * sum_metric(metric, loss, pred, target);
    pred.data = pred.as<std::byte>() + pred_bytes;
    target.data = target.as<std::byte>() + target_bytes;
  }
  return sum;
}

double total(const double* weights, Index rows) {
  if (!weights) return static_cast<double>(rows);
  double sum = 0;
  for (Index i = 0; i < rows; ++i) sum += weights[i];
  return sum;
}

}  // namespace

double Tally::sum(const Operand& losses, const double* weights) {
  const auto* loss = losses.as<const double>();
  double sum = 0;
  if (!weights) {
    for (Index i = 0; i < losses.rows; ++i) sum += loss[i];
    return sum;
  }
  for (Index i = 0; i < losses.rows; ++i)
    if (weights[i] != 0) sum += weights[i] * loss[i];
  return sum;
}

void Tally::add(double loss, const Operand& pred, const Operand& target, const SampleWeights& weights) {
  sums[0] += loss;
  for (std::size_t m = 0; m < metrics_.size(); ++m)
    sums[m + 1] += weights.metrics ? weighted_metric(metrics_[m], loss_, pred, target, weights.metrics)
                                   : sum_metric(metrics_[m], loss_, pred, target);
  if (!weighted_) return;
  sums[means()] += total(weights.loss, pred.rows);
  sums[means() + 1] += total(weights.metrics, pred.rows);
}

void Tally::append_means(Index rows, std::vector<double>& to) const {
  const double all = static_cast<double>(rows);
  to.push_back(sums[0] / (weighted_ ? sums[means()] : all));
  for (std::size_t m = 0; m < metrics_.size(); ++m)
    to.push_back(sums[m + 1] / (weighted_ ? sums[means() + 1] : all));
}

}  // namespace gemmule
