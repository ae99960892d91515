// Programs that read parameters: prediction, tracing, evaluation, and forward and backward by hand.
#pragma once
#include <map>
#include <memory>
#include <optional>

#include "plan/metrics.h"
#include "plan/poll.h"
#include "plan/program.h"
#include "plan/state_update.h"
#include "plan/tally.h"

namespace gemmule {

// Forward only; concurrent calls are safe.
class Predictor {
 public:
  Predictor(Graph graph, ValueId output, Index capacity);
  // x (rows, input), out (rows, output). False if interrupted.
  bool run(const std::byte* x, Index rows, std::byte* out, Poll& poll) const;
  const Program& program() const { return program_; }
  ValueId input() const { return input_; }
  ValueId output() const { return output_; }

 private:
  ValueId input_, output_;
  Program program_;
};

// Runs `graph` unfused and hands each value of `values` to `take`.
void trace(Graph graph, const std::vector<ValueId>& values, const std::byte* x, Index rows,
           const std::function<void(std::size_t, const Operand&)>& take);

// Forward, then backward from the gradient of what forward returned.
class Tape {
 public:
  Tape(Graph graph, ValueId output, Index capacity);
  void forward(const std::byte* x, Index rows, std::byte* out, const StepScalars& scalars);
  // Adds to the gradients of the parameters; dx (rows, input).
  void backward(const std::byte* dout, std::byte* dx);
  Index rows() const { return rows_; }  // of the last forward; 0 before the first
  const Program& program() const { return *program_; }
  ValueId input() const { return input_; }
  ValueId output() const { return output_; }

 private:
  void copy_out(ValueId value, std::byte* dst) const;

  ValueId input_, output_, seed_ = no_value, input_grad_ = no_value;
  std::unique_ptr<Program> program_;
  std::optional<StateUpdate> state_;
  std::unique_ptr<Execution> execution_;
  Index rows_ = 0;
  StepScalars scalars_;
};

// A loss with its parameter.
struct LossKind {
  Loss loss = Loss::mse;
  double parameter = 0;
};

// The graph of a network with its loss on top; labels are one int64 a sample, other targets look like the
// output. Where samples have weights, `shares` are theirs of the batch's.
struct LossGraph {
  LossGraph(Graph network, ValueId output, LossKind kind, bool labels, bool weighted);
  Graph graph;
  ValueId input, output, target, loss, shares = no_value;
};

// Mean loss and metrics over a data set.
class Evaluator {
 public:
  Evaluator(Graph graph, ValueId output, LossKind loss, std::vector<Metric> metrics, Index capacity);
  // Means over the samples: loss first, then the metrics. Empty if interrupted.
  std::vector<double> run(const std::byte* x, const std::byte* y, bool labels, const SampleWeights& weights,
                          Index rows, Poll& poll);
  const Graph& graph() const { return graph_; }
  ValueId output() const { return output_; }

 private:
  struct Compiled;
  const Compiled& compiled(bool labels);

  Graph graph_;
  ValueId output_;
  LossKind loss_;
  std::vector<Metric> metrics_;
  Index capacity_;
  std::mutex mutex_;
  std::map<bool, std::shared_ptr<Compiled>> programs_;
};

// The one value of Home::external that a network's graph has.
ValueId input_of(const Graph& graph);

}  // namespace gemmule
