#include "plan/train.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/shuffle.h"

namespace gemmule {

// One training step as a program: forward, loss, backward into the gradients. Batches are gathered into
// arena-like buffers of the loop, which x and the target are bound to.
struct Trainer::Compiled {
  Compiled(const Graph& network, ValueId network_output, Loss kind, bool labels, bool needs_output,
           Index batch_size)
      : joint(network, network_output, kind, labels),
        program(cpu::backend, differentiated(joint, needs_output), batch_size, kept(joint, needs_output)) {
    const Graph& graph = program.graph();
    x_bytes = graph.info(joint.input).dims.count() * size_of(graph.type);
    y_bytes = graph.info(joint.target).dims.count() * size_of(graph.info(joint.target).type);
  }

  static std::vector<ValueId> kept(const LossGraph& g, bool needs_output) {
    return needs_output ? std::vector{g.loss, g.output} : std::vector{g.loss};
  }
  static Graph differentiated(const LossGraph& g, bool needs_output) {
    Graph graph = g.graph;
    differentiate(graph, g.loss, no_value, g.input, false, false);
    fuse(graph, kept(g, needs_output));
    return graph;
  }

  LossGraph joint;
  Program program;
  Index x_bytes, y_bytes;  // of a sample
};

// The state of one run; the members of the team share it and meet at barriers.
class Trainer::Loop {
 public:
  Loop(const Compiled& compiled, Trainer& trainer, const FitCall& call, Stepper& stepper, Poll& poll,
       FitResult& result)
      : c_(compiled),
        trainer_(trainer),
        call_(call),
        stepper_(stepper),
        poll_(poll),
        result_(result),
        batch_(std::min(trainer.batch_size_, call.rows)),
        lease_(c_.program, c_.program.team_size(batch_)),
        x_(checked_mul(batch_, c_.x_bytes)),
        y_(checked_mul(batch_, c_.y_bytes)),
        order_(static_cast<std::size_t>(call.rows)),
        sums_(1 + trainer.metrics_.size()),
        scalars_(call.start),
        crowding_(trainer.crowding_) {
    // Python ops open their own teams for the native stretches between them.
    crowding_.adopt(c_.program.calls_python() ? 1 : lease_->members);
    address(c_.joint.input) = x_.data();
    address(c_.joint.target) = y_.data();
    c_.program.bind_views(*lease_);
  }

  void run() {
    while (epoch_ < call_.epochs && result_.end == FitEnd::done) {
      crowding_.begin_slice();
      // Nothing is allocated while a team runs: room for some epochs here, and a new slice once it is used
      // up.
      result_.means.reserve(result_.means.size() + 1024 * sums_.size());
      run_team(crowding_.members(), [&](const Team& team) { slice(team); });
    }
  }

 private:
  void*& address(ValueId id) { return lease_->address[static_cast<std::size_t>(id)]; }

  // Steps from where the run stands until it ends, or until the team should be formed anew. The leading
  // member decides when, before a barrier; the others read it behind.
  void slice(const Team& team) {
    Index epoch = epoch_, at = at_;  // every member counts for itself; the leading one keeps the books
    if (team.leads()) over_ = epoch == call_.epochs;
    if (team.leads() && !over_ && at == 0) begin_epoch(epoch);
    team.barrier();
    if (over_) return;
    for (;;) {
      const Index rows = std::min(batch_, call_.rows - at);
      gather(team, at, rows);
      team.barrier();
      if (over_ || !step(team, at, rows)) return;
      at += rows;
      if (at == call_.rows) at = 0, ++epoch;
      if (team.leads()) keep_books(team, epoch, at);
      if (at != 0) continue;
      team.barrier();  // the next epoch's order is ready, if there is one
      if (over_) return;
    }
  }

  void keep_books(const Team& team, Index epoch, Index at) {
    ++scalars_.step;
    ++result_.steps;
    epoch_ = epoch;
    at_ = at;
    if (at == 0) end_epoch();
    const bool full = result_.means.capacity() - result_.means.size() < sums_.size();
    over_ = crowding_.ends_slice(team.sleeps()) || full || epoch == call_.epochs;
    if (at == 0 && !over_) begin_epoch(epoch);
  }

  void begin_epoch(Index epoch) {
    std::fill(sums_.begin(), sums_.end(), 0.0);
    if (call_.order)
      std::copy_n(call_.order + epoch * call_.rows, call_.rows, order_.begin());
    else if (call_.shuffle)
      shuffle(call_.rows, order_.data(), scalars_.key, scalars_.step);
    else
      for (Index i = 0; i < call_.rows; ++i) order_[static_cast<std::size_t>(i)] = i;
  }

  void end_epoch() {
    for (double sum : sums_) result_.means.push_back(sum / static_cast<double>(call_.rows));
    ++result_.epochs;
  }

  // One training step on what was gathered, as every member. False: the run ends before this step.
  bool step(const Team& team, Index at, Index rows) {
    if (c_.program.calls_python())
      c_.program.run(*lease_, 0, c_.program.nodes(), rows, scalars_, &poll_);
    else
      c_.program.run_member(team, *lease_, 0, c_.program.nodes(), rows, scalars_, &poll_);
    if (poll_.stopped()) {
      if (team.leads()) result_.end = FitEnd::interrupted;
      return false;
    }
    const bool sound = !team.leads() || add_up(rows);
    if (stepper_.step(team, sound)) return true;
    if (team.leads()) diverge(at);
    return false;
  }

  void gather(const Team& team, Index at, Index rows) {
    const Span part = team.share(rows);
    for (Index i = part.begin; i < part.end; ++i) {
      const std::int64_t row = order_[static_cast<std::size_t>(at + i)];
      std::memcpy(x_.data() + i * c_.x_bytes, call_.x + row * c_.x_bytes,
                  static_cast<std::size_t>(c_.x_bytes));
      std::memcpy(y_.data() + i * c_.y_bytes, call_.y + row * c_.y_bytes,
                  static_cast<std::size_t>(c_.y_bytes));
    }
  }

  // The batch's loss and metrics, in the order of its samples. False where the loss is not finite.
  bool add_up(Index rows) {
    const double* losses = c_.program.operand(*lease_, c_.joint.loss, rows).as<const double>();
    double loss = 0;
    for (Index i = 0; i < rows; ++i) loss += losses[i];
    if (!std::isfinite(loss)) return false;
    sums_[0] += loss;
    for (std::size_t m = 0; m < trainer_.metrics_.size(); ++m)
      sums_[m + 1] +=
          sum_metric(trainer_.metrics_[m], trainer_.loss_, c_.program.operand(*lease_, c_.joint.output, rows),
                     c_.program.operand(*lease_, c_.joint.target, rows));
    return true;
  }

  void diverge(Index at) {
    result_.end = FitEnd::diverged;
    result_.batch = at / batch_ + 1;
    result_.reason = stepper_.reason();
  }

  const Compiled& c_;
  const Trainer& trainer_;
  const FitCall& call_;
  Stepper& stepper_;
  Poll& poll_;
  FitResult& result_;
  const Index batch_;
  const Lease lease_;
  const Arena x_, y_;
  std::vector<std::int64_t> order_;
  std::vector<double> sums_;
  StepScalars scalars_;
  Index epoch_ = 0, at_ = 0;  // where the run stands
  Crowding& crowding_;
  bool over_ = false;
};

Trainer::Trainer(Graph graph, ValueId output, Loss loss, std::vector<Metric> metrics, Index batch_size)
    : graph_(std::move(graph)),
      output_(output),
      loss_(loss),
      metrics_(std::move(metrics)),
      batch_size_(batch_size) {
  require(batch_size >= 1, ErrorKind::value, "fit: batch_size is ", batch_size, ", not at least 1");
}

Trainer::~Trainer() = default;

const Trainer::Compiled& Trainer::compiled(bool labels) {
  auto& entry = programs_[labels];
  if (!entry)
    entry = std::make_unique<Compiled>(graph_, output_, loss_, labels, !metrics_.empty(), batch_size_);
  return *entry;
}

void Trainer::run(const FitCall& call, Stepper& stepper, Poll& poll, FitResult& result) {
  require(call.rows >= 1, ErrorKind::value, "fit: no samples");
  if (call.order)
    for (Index i = 0; i < checked_mul(call.epochs, call.rows); ++i)
      require(call.order[i] >= 0 && call.order[i] < call.rows, ErrorKind::value, "fit: order holds ",
              call.order[i], ", samples are numbered 0 to ", call.rows - 1);
  Loop(compiled(call.labels), *this, call, stepper, poll, result).run();
}

std::string Trainer::describe() {
  const bool labels = loss_ == Loss::cross_entropy || loss_ == Loss::cross_entropy_probabilities;
  return compiled(labels).program.describe("training step");
}

}  // namespace gemmule
