#include "plan/train.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/shuffle.h"

namespace gemmule {
namespace {

constexpr Index fewest_rows_to_copy = 16;  // the lanes of AVX-512: fewer rows would leave some idle

// Parameters up to half of L1 are read from there however they lie, and copying them to and fro, the panels'
// padding and their detours are all that is left of a copy: 8-64-64-4 takes 25.9 us a step with it and 24.4
// without, 2-10-1 12.8 and 7.3; 784-32-10 35 and 39.
constexpr Index small_parameters = 32 * 1024;

enum class Copying { by_size, always, never };

std::atomic<Copying>& copying() {
  static std::atomic<Copying> wish{Copying::by_size};
  return wish;
}

bool worth_copying(const Graph& graph, Index batch_size) {
  const Copying wish = copying();
  if (wish == Copying::never || batch_size < fewest_rows_to_copy) return false;
  Index bytes = 0;
  for (const ParameterRef& p : graph.parameters)
    bytes += graph.info(p.value).dims.count() * size_of(graph.info(p.value).type);
  return wish == Copying::always || bytes > small_parameters;
}

}  // namespace

// One training step as a program: forward, loss, backward into the gradients. Batches are gathered into
// arena-like buffers of the loop, which x and the target are bound to.
struct Trainer::Compiled {
  Compiled(LossGraph loss_graph, Graph step, const std::vector<ValueId>& keep, Index batch_size,
           int gradients)
      : joint(std::move(loss_graph)),
        program(cpu::backend, std::move(step), batch_size, keep),
        first_gradient(gradients) {
    const Graph& graph = program.graph();
    listed = graph.value(joint.input).listed;
    x_bytes = graph.info(joint.input).dims.count() * size_of(graph.type);
    y_bytes = graph.info(joint.target).dims.count() * size_of(graph.info(joint.target).type);
    if (first_gradient == 0) return;
    for (std::size_t i = static_cast<std::size_t>(first_gradient); i < graph.nodes.size(); ++i) {
      const Node& node = graph.nodes[i];
      remember(dz, node.in[0]);
      if (node.op == OpKind::matmul) remember(inputs, node.in[1]);
    }
  }

  static void remember(std::vector<ValueId>& list, ValueId id) {
    if (std::find(list.begin(), list.end(), id) == list.end()) list.push_back(id);
  }

  LossGraph joint;
  Program program;
  // Of a program on copied parameters (0 and empty otherwise): the first of the ops that make gradients, all
  // at its end, and what they read: every gradient is a sum over the batch of products of a `dz` and an
  // element of an input, or of a `dz` alone.
  int first_gradient;
  std::vector<ValueId> dz, inputs;
  bool listed;             // the samples are read where the data set has them
  Index x_bytes, y_bytes;  // of a sample
};

// The state of one run; the members of the team share it and meet at barriers.
class Trainer::Loop {
 public:
  // `copy`: of the parameters, nullptr for a program on the stored ones.
  Loop(const Compiled& compiled, Trainer& trainer, const FitCall& call, const Optimizer& optimizer,
       const WorkingCopy* copy, Poll& poll, FitResult& result)
      : c_(compiled),
        trainer_(trainer),
        call_(call),
        stepper_(cpu::backend, optimizer),
        copy_(copy),
        poll_(poll),
        result_(result),
        batch_(std::min(trainer.batch_size_, call.rows)),
        lease_(c_.program, c_.program.team_size(batch_)),
        x_(c_.listed ? 0 : checked_mul(batch_, c_.x_bytes)),
        y_(checked_mul(batch_, c_.y_bytes)),
        listed_(c_.listed ? static_cast<std::size_t>(batch_) : 0),
        order_(static_cast<std::size_t>(call.rows)),
        sums_(1 + trainer.metrics_.size()),
        scalars_(call.start),
        crowding_(trainer.crowding_) {
    // Python ops open their own teams for the native stretches between them.
    crowding_.adopt(c_.program.calls_python() ? 1 : lease_->members);
    address(c_.joint.input) = c_.listed ? static_cast<void*>(listed_.data()) : x_.data();
    address(c_.joint.target) = y_.data();
    output_bytes_ = c_.program.graph().count(c_.joint.output, 1) * size_of(c_.program.graph().type);
    if (call.begin.at > 0) {
      result_.position = call.begin;
      sums_ = call.begin.sums;
      at_ = call.begin.at;
      find_order(0);
    }
    c_.program.bind_views(*lease_);
    if (!copy_) return;
    copy_->bind(*lease_);
    targets_ = copy_->targets();
  }

  void run() {
    if (copy_) run_team(crowding_.members(), [&](const Team& team) { copy_->take(team); });
    run_epochs();
    if (copy_ && result_.steps > 0)
      run_team(crowding_.members(),
               [&](const Team& team) { copy_->put_back(team, result_.end == FitEnd::done); });
  }

 private:
  void run_epochs() {
    while (!complete() && result_.end == FitEnd::done) {
      crowding_.begin_slice();
      // Nothing is allocated while a team runs: room for some epochs here, and a new slice once it is used
      // up.
      result_.means.reserve(result_.means.size() + 1024 * sums_.size());
      run_team(crowding_.members(), [&](const Team& team) { slice(team); });
    }
  }

  void*& address(ValueId id) { return lease_->address[static_cast<std::size_t>(id)]; }

  bool complete() const { return epoch_ == call_.epochs || result_.steps == call_.most_steps; }

  // Steps from where the run stands until it ends, or until the team should be formed anew. The leading
  // member decides when, before a barrier; the others read it behind.
  void slice(const Team& team) {
    Index epoch = epoch_, at = at_;  // every member counts for itself; the leading one keeps the books
    if (team.leads()) over_ = complete();
    if (team.leads() && !over_ && at == 0) begin_epoch(epoch);
    team.barrier();
    if (over_) return;
    for (;;) {
      const Index rows = std::min(batch_, call_.rows - at);
      gather(team, at, rows);
      team.barrier();
      if (over_ || !step(team, epoch, at, rows)) return;
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
    at_ = result_.position.at = at;
    if (at == 0) end_epoch();
    std::copy(sums_.begin(), sums_.end(), result_.position.sums.begin());
    const bool full = result_.means.capacity() - result_.means.size() < sums_.size();
    over_ = crowding_.ends_slice(team.sleeps()) || full || complete();
    if (at == 0 && !over_) begin_epoch(epoch);
  }

  void begin_epoch(Index epoch) {
    std::fill(sums_.begin(), sums_.end(), 0.0);
    result_.position.epoch_step = scalars_.step;
    find_order(epoch);
  }

  void find_order(Index epoch) {
    if (call_.order)
      std::copy_n(call_.order + epoch * call_.rows, call_.rows, order_.begin());
    else if (call_.shuffle)
      shuffle(call_.rows, order_.data(), scalars_.key, result_.position.epoch_step);
    else
      for (Index i = 0; i < call_.rows; ++i) order_[static_cast<std::size_t>(i)] = i;
  }

  void end_epoch() {
    for (double sum : sums_) result_.means.push_back(sum / static_cast<double>(call_.rows));
    ++result_.epochs;
  }

  // One training step on what was gathered, as every member. False: the run ends before this step.
  bool step(const Team& team, Index epoch, Index at, Index rows) {
    const int part = copy_ ? c_.first_gradient : c_.program.nodes();
    if (c_.program.calls_python())
      c_.program.run(*lease_, 0, part, rows, scalars_, &poll_);
    else
      c_.program.run_member(team, *lease_, 0, part, rows, scalars_, &poll_);
    if (poll_.stopped()) {
      if (team.leads()) result_.end = FitEnd::interrupted;
      return false;
    }
    if (call_.outputs) record(team, at, rows);
    const bool sound = !team.leads() || add_up(rows);
    const bool last =
        (at + rows == call_.rows && epoch + 1 == call_.epochs) || result_.steps + 1 == call_.most_steps;
    if (copy_ ? step_riding(team, rows, sound, last) : stepper_.step(team, sound)) return true;
    if (team.leads()) diverge(at);
    return false;
  }

  // The gradients, each followed by its update while it is in cache. A step commits whole: nothing is written
  // before a bound on every gradient is known; where the bound is too high for that, the gradients are made
  // first and looked at. Only the last step's are kept, for `.grad`.
  bool step_riding(const Team& team, Index rows, bool sound, bool last) {
    const bool rides = stepper_.bounded(team, static_cast<double>(rows), largest(team, c_.dz, rows),
                                        largest(team, c_.inputs, rows), sound);
    RidingUpdate update{stepper_.rule(), stepper_.args_now(), targets_, last};
    c_.program.run_member(team, *lease_, c_.first_gradient, c_.program.nodes(), rows, scalars_, nullptr,
                          rides ? &update : nullptr);
    if (!rides) return stepper_.step(team, sound);
    stepper_.stepped(team, update.reach);
    return true;
  }

  // The largest magnitude in this member's part of some values.
  double largest(const Team& team, const std::vector<ValueId>& values, Index rows) const {
    double size = 0;
    for (ValueId id : values)
      size = std::max(size, cpu::backend.max_abs(c_.program.operand(*lease_, id, rows), team));
    return size;
  }

  // This member's samples of the batch, copied side by side, or their addresses where the products take them
  // from a list. Those that follow one another in the data set too, as all of an unshuffled batch, go at
  // once: one by one, 200 samples of 2-10-1 took a fifth of its step.
  void gather(const Team& team, Index at, Index rows) {
    const Span part = team.share(rows);
    const std::int64_t* order = order_.data() + at;
    for (Index i = part.begin, run = 1; i < part.end; i += run) {
      const std::int64_t row = order[i];
      for (run = 1; i + run < part.end && order[i + run] == row + run;) ++run;
      const std::byte* first = call_.x + row * c_.x_bytes;
      if (c_.listed)
        for (Index k = 0; k < run; ++k) listed_[static_cast<std::size_t>(i + k)] = first + k * c_.x_bytes;
      else
        std::memcpy(x_.data() + i * c_.x_bytes, first, static_cast<std::size_t>(run * c_.x_bytes));
      std::memcpy(y_.data() + i * c_.y_bytes, call_.y + row * c_.y_bytes,
                  static_cast<std::size_t>(run * c_.y_bytes));
    }
  }

  // This member's share of the batch's outputs, to where their samples stand in the data set.
  void record(const Team& team, Index at, Index rows) {
    const Span part = team.share(rows);
    const auto* outputs = c_.program.operand(*lease_, c_.joint.output, rows).as<const std::byte>();
    for (Index i = part.begin; i < part.end; ++i)
      std::memcpy(call_.outputs + order_[static_cast<std::size_t>(at + i)] * output_bytes_,
                  outputs + i * output_bytes_, static_cast<std::size_t>(output_bytes_));
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
  Stepper stepper_;
  const WorkingCopy* copy_;
  std::vector<UpdateTarget> targets_;
  Poll& poll_;
  FitResult& result_;
  const Index batch_;
  const Lease lease_;
  const Arena x_, y_;
  std::vector<const std::byte*> listed_;
  std::vector<std::int64_t> order_;
  std::vector<double> sums_;
  StepScalars scalars_;
  Index output_bytes_ = 0;    // of a sample
  Index epoch_ = 0, at_ = 0;  // where the run stands
  Crowding& crowding_;
  bool over_ = false;
};

Trainer::Trainer(Graph graph, ValueId output, Loss loss, std::vector<Metric> metrics, Index batch_size,
                 bool keeps_output)
    : graph_(std::move(graph)),
      output_(output),
      loss_(loss),
      metrics_(std::move(metrics)),
      batch_size_(batch_size),
      keeps_output_(keeps_output) {
  require(batch_size >= 1, ErrorKind::value, "fit: batch_size is ", batch_size, ", not at least 1");
}

Trainer::~Trainer() = default;

const Trainer::Compiled* Trainer::compiled(bool labels, Parameters form) {
  const auto [entry, fresh] = programs_.try_emplace({labels, form});
  if (!fresh) return entry->second.get();
  LossGraph joint(graph_, output_, loss_, labels);
  Graph step = joint.graph;
  std::vector<ValueId> keep{joint.loss};
  if (keeps_output_ || !metrics_.empty()) keep.push_back(joint.output);
  differentiate(step, joint.loss, no_value, joint.input, false, false);
  fuse(step, keep);
  const bool copied = form == Parameters::copied;
  if (copied && !prefer_panels(step)) return nullptr;
  if (copied)
    prefer_listed(step, joint.input,
                  cpu::backend.most_outputs_of_listed(step.type, step.info(joint.input).dims.count()));
  const int gradients = copied ? gather_gradients(step) : 0;
  entry->second = std::make_unique<Compiled>(std::move(joint), std::move(step), keep, batch_size_, gradients);
  return entry->second.get();
}

// The form to run in: by network, batch size and optimizer alone, so that a run in parts has the bits of the
// whole.
const Trainer::Compiled* Trainer::copied_program(const FitCall& call, const Optimizer& optimizer) {
  if (!worth_copying(graph_, batch_size_) || !Stepper::settled(optimizer)) return nullptr;
  const Compiled* program = compiled(call.labels, Parameters::copied);
  return program && WorkingCopy::possible(program->program.graph(), optimizer) ? program : nullptr;
}

void Trainer::run(const FitCall& call, const Optimizer& optimizer, Poll& poll, FitResult& result) {
  require(call.rows >= 1, ErrorKind::value, "fit: no samples");
  require(call.begin.at >= 0 && call.begin.at < call.rows && call.begin.at % batch_size_ == 0,
          ErrorKind::value, "fit: cannot begin at sample ", call.begin.at, " of ", call.rows,
          " in batches of ", batch_size_);
  require(call.begin.at == 0 || call.begin.sums.size() == 1 + metrics_.size(), ErrorKind::value,
          "fit: begin holds ", call.begin.sums.size(), " sums for ", 1 + metrics_.size());
  require(!call.outputs || keeps_output_, ErrorKind::value, "fit: this trainer keeps no outputs");
  result.position = {0, call.start.step, std::vector<double>(1 + metrics_.size(), 0.0)};
  if (call.order)
    for (Index i = 0; i < checked_mul(call.epochs, call.rows); ++i)
      require(call.order[i] >= 0 && call.order[i] < call.rows, ErrorKind::value, "fit: order holds ",
              call.order[i], ", samples are numbered 0 to ", call.rows - 1);
  if (const Compiled* program = copied_program(call, optimizer)) {
    const WorkingCopy copy(cpu::backend, program->program.graph(), optimizer);
    Optimizer on_copy = optimizer;
    on_copy.ranges = copy.ranges();
    Loop(*program, *this, call, on_copy, &copy, poll, result).run();
  } else {
    Loop(*compiled(call.labels, Parameters::stored), *this, call, optimizer, nullptr, poll, result).run();
  }
}

void set_copying(std::optional<bool> wish) {
  copying() = !wish ? Copying::by_size : *wish ? Copying::always : Copying::never;
}

std::string Trainer::describe() {
  const bool labels = loss_ == Loss::cross_entropy || loss_ == Loss::cross_entropy_probabilities;
  const Compiled* program =
      worth_copying(graph_, batch_size_) ? compiled(labels, Parameters::copied) : nullptr;
  if (!program) program = compiled(labels, Parameters::stored);
  return program->program.describe("training step");
}

}  // namespace gemmule
