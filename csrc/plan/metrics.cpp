#include "plan/metrics.h"

#include <cmath>

namespace gemmule {
namespace {

template <class T>
Index largest(const T* row, Index cols) {
  Index best = 0;
  for (Index j = 1; j < cols; ++j)
    if (row[j] > row[best]) best = j;
  return best;
}

template <class T>
double accuracy(Loss loss, const Operand& pred, const Operand& target) {
  const bool binary = loss == Loss::bce || loss == Loss::bce_with_logits || loss == Loss::hinge;
  const T threshold = loss == Loss::bce ? T(0.5) : T(0);
  double right = 0;
  for (Index i = 0; i < pred.rows; ++i) {
    const T* p = pred.as<const T>() + i * pred.cols;
    if (target.type == DType::i64) {
      right += largest(p, pred.cols) == target.as<const std::int64_t>()[i];
      continue;
    }
    const T* t = target.as<const T>() + i * pred.cols;
    if (binary) {
      Index agree = 0;
      for (Index j = 0; j < pred.cols; ++j) agree += (p[j] > threshold) == (t[j] > T(0.5));
      right += static_cast<double>(agree) / static_cast<double>(pred.cols);
    } else {
      right += largest(p, pred.cols) == largest(t, pred.cols);
    }
  }
  return right;
}

template <class T>
double error(bool squared, const Operand& pred, const Operand& target) {
  double sum = 0;
  for (Index i = 0; i < pred.count(); ++i) {
    const double e =
        static_cast<double>(pred.as<const T>()[i]) - static_cast<double>(target.as<const T>()[i]);
    sum += squared ? e * e : std::abs(e);
  }
  return sum / static_cast<double>(pred.cols);
}

template <class T>
double sum_of(Metric metric, Loss loss, const Operand& pred, const Operand& target) {
  return metric == Metric::accuracy ? accuracy<T>(loss, pred, target)
                                    : error<T>(metric == Metric::mse, pred, target);
}

}  // namespace

Metric metric_of(const std::string& name) {
  if (name == "accuracy") return Metric::accuracy;
  if (name == "mse") return Metric::mse;
  if (name == "mae") return Metric::mae;
  fail(ErrorKind::value, "unknown metric '", name, "'; known are accuracy, mse, mae");
}

double sum_metric(Metric metric, Loss loss, const Operand& pred, const Operand& target) {
  require(metric == Metric::accuracy || target.type != DType::i64, ErrorKind::dtype,
          "mse and mae need real targets, not labels");
  return pred.type == DType::f64 ? sum_of<double>(metric, loss, pred, target)
                                 : sum_of<float>(metric, loss, pred, target);
}

}  // namespace gemmule
