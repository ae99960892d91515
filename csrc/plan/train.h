// The epoch loop: shuffled gather, forward, loss, backward, update, with no Python between batches or epochs.
#pragma once
#include <map>
#include <optional>
#include <tuple>

#include "plan/batches.h"
#include "plan/crowding.h"
#include "plan/forward.h"
#include "plan/gather.h"
#include "plan/state_update.h"
#include "plan/working_copy.h"

namespace gemmule {

// Where a run stands within an epoch.
struct Position {
  Index at = 0;                  // samples of the epoch that are done
  std::uint64_t epoch_step = 0;  // StepScalars::step when the epoch began: it draws the order
  std::vector<double> sums;      // of the loss and the metrics so far, see Tally
};

// A data set and how often to walk it.
struct FitCall {
  Samples samples;
  bool labels = false;
  SampleWeights weights;
  Index rows = 0;
  Index epochs = 1;       // to bring to their end, the one under way included
  Index most_steps = -1;  // after which the run ends at any rate; -1: no limit
  // at > 0: within the first of the epochs. At 0, its sums are those of samples that came before these rows:
  // an epoch may come in several calls.
  Position begin;
  std::span<const Index> sizes;         // rows of each batch; empty: the trainer's batch size
  const std::int64_t* order = nullptr;  // (epochs, rows), or nullptr
  bool shuffle = true;
  StepScalars start;             // step: training steps the network has done before
  std::byte* outputs = nullptr;  // (rows, output): what the network gave for each sample, where wanted
};

enum class FitEnd { done, diverged, interrupted };

struct FitResult {
  FitEnd end = FitEnd::done;
  Index steps = 0;            // complete
  Index epochs = 0;           // complete
  std::vector<double> means;  // (loss, metrics...) of each complete epoch, over its samples
  Position position;          // behind the last complete step
  Index batch = 0;            // of the epoch, or these rows, in which it diverged, from 1
  const char* reason = "";    // what was not finite
};

class Trainer {
 public:
  // How a step is made: all gradients and then the update of the stored parameters; or each update as soon as
  // its gradient is made, riding on that op, of the stored parameters or of a working copy.
  enum class Form { stepped, riding, copied };
  // Test hook: the form of every run that allows it; else it is chosen.
  static void force(std::optional<Form> form);

  // `keeps_output`: FitCall::outputs may be asked for. `per_step`: so many batches make one step, with the
  // gradient of the mean over all their samples; the last step of an epoch takes what is left.
  Trainer(Graph graph, ValueId output, LossKind loss, std::vector<Metric> metrics, Index batch_size,
          bool keeps_output, Index per_step);
  ~Trainer();
  // `result` is kept up to date, so that it holds what was committed even if a Python layer throws.
  void run(const FitCall& call, const Optimizer& optimizer, Poll& poll, FitResult& result);
  std::string describe();
  const Graph& graph() const { return graph_; }
  ValueId output() const { return output_; }
  Batches batches(const FitCall& call) const { return {call.rows, batch_size_, per_step_, call.sizes}; }

 private:
  struct Compiled;
  class Loop;
  // nullptr where the network's ops do not allow that form.
  const Compiled* compiled(bool labels, bool weighted, Form form);
  // In the form that pays for this network, batch size and optimizer.
  const Compiled& chosen(const FitCall& call, const Optimizer& optimizer);
  Form worth() const;

  Graph graph_;
  ValueId output_;
  LossKind loss_;
  std::vector<Metric> metrics_;
  Index batch_size_, per_step_;
  bool keeps_output_;
  std::map<std::tuple<bool, bool, Form>, std::unique_ptr<Compiled>> programs_;
  Crowding crowding_;
};

}  // namespace gemmule
