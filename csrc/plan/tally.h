// Means over the samples of a data set, batch by batch: of the loss and of metrics, plain or weighted.
#pragma once
#include <vector>

#include "plan/metrics.h"

namespace gemmule {

// What each sample counts, in the mean of the losses and in those of the metrics; nullptr: all alike. There
// are none of metrics alone.
struct SampleWeights {
  const double* loss = nullptr;
  const double* metrics = nullptr;

  bool any() const { return loss != nullptr; }
  SampleWeights from(Index row) const {
    return {loss ? loss + row : nullptr, metrics ? metrics + row : nullptr};
  }
};

class Tally {
 public:
  Tally(Loss loss, std::vector<Metric> metrics, bool weighted)
      : loss_(loss), metrics_(std::move(metrics)), weighted_(weighted) {
    sums.assign(size(), 0.0);
  }

  // The sum of a batch's losses. A sample of weight 0 is passed over, whatever its loss.
  static double sum(const Operand& losses, const double* weights);
  // Counts a batch whose losses have that sum.
  void add(double loss, const Operand& pred, const Operand& target, const SampleWeights& weights);
  // Appends the means over `rows` samples, NaN where nothing had a weight.
  void append_means(Index rows, std::vector<double>& to) const;
  std::size_t size() const { return 1 + metrics_.size() + (weighted_ ? 2 : 0); }
  std::size_t means() const { return 1 + metrics_.size(); }

  std::vector<double> sums;  // of the loss, each metric and, weighted, of what losses and metrics count

 private:
  Loss loss_;
  std::vector<Metric> metrics_;
  bool weighted_;
};

}  // namespace gemmule
