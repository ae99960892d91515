#include "plan/train.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/shuffle.h"

namespace gemmule {
namespace {

// All times: Emerald Rapids, two threads.

// Parameters up to half of L1 are read from there however they lie, and copying them to and fro, the panels'
// padding and their detours are all that is left of a copy: 8-64-64-4 takes 25.9 us a step with it and 24.4
// without, 2-10-1 12.8 and 7.3; 784-32-10 35 and 39.
constexpr Index small_parameters = 32 * 1024;

// A copy saves packing the weights. Fewer rows than the lanes of AVX-512 would leave some idle, and beside
// many rows packing costs little, while panels that come from memory wait longer than rows that are packed as
// they come. MNIST's 784-256-128-10 takes 0.85 of the time with a copy at batch 64 and 1.2 at 1024;
// 512-512-512-10 0.79 at 32 and 64, 0.90 at 128; four layers of 1024 (17 MB) 0.8 at 32 and 1.0 at 64; of 2048
// (67 MB) 1.03 at 32, 1.36 at 64, 1.17 at 256.
constexpr Index fewest_rows_to_copy = 16, most_rows_to_copy = 255, most_bytes_to_copy = 32 * 1024 * 1024;

// Riding on the stored parameters saves a pass over all gradients: where they are long, and more than the
// outputs and inputs of layers that bound them instead. Four layers of 2048 take 0.71 of the time at 16, 0.77
// at 32, 0.9 at 256; 1024-1024-1024-10 0.82 to 0.93 at 1 to 8; 64-128-64-4 1.1.
constexpr Index fewest_bytes_to_ride = 256 * 1024;

std::atomic<std::optional<Trainer::Form>>& forced() {
  static std::atomic<std::optional<Trainer::Form>> form{std::nullopt};
  return form;
}

}  // namespace

// What is done for a batch as a program: forward, loss, backward into the gradients.
struct Trainer::Compiled {
  Compiled(Form how, LossGraph loss_graph, Graph step, const std::vector<ValueId>& keep, Index batch_size,
           int gradients)
      : form(how),
        joint(std::move(loss_graph)),
        program(cpu::backend, std::move(step), batch_size, keep),
        first_gradient(gradients) {
    program.flush_subnormals();
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

  Form form;
  LossGraph joint;
  Program program;
  // Of a program whose updates ride (0 and empty otherwise): the first of the ops that make gradients, all
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
  // `copy`: of the parameters, nullptr for a program on the stored ones. `optimizer` walks what is trained.
  Loop(const Compiled& compiled, Trainer& trainer, const FitCall& call, const Optimizer& optimizer,
       const WorkingCopy* copy, Poll& poll, FitResult& result)
      : c_(compiled),
        call_(call),
        stepper_(cpu::backend, optimizer),
        state_(compiled.program.graph()),
        copy_(copy),
        rides_(compiled.first_gradient > 0),
        poll_(poll),
        result_(result),
        batches_(trainer.batches(call)),
        sums_up_(trainer.per_step_ > 1),
        most_rows_(std::min(trainer.batch_size_, call.rows)),
        lease_(c_.program, c_.program.team_size(most_rows_)),
        gather_(cpu::backend, c_.program.graph().type, call.samples, c_.listed, c_.x_bytes, c_.y_bytes,
                most_rows_, lease_->members),
        order_(static_cast<std::size_t>(call.rows)),
        tally_(trainer.loss_.loss, trainer.metrics_, call.weights.any()),
        scalars_(call.start),
        crowding_(trainer.crowding_) {
    // Python ops open their own teams for the native stretches between them.
    crowding_.adopt(c_.program.calls_python() ? 1 : lease_->members);
    address(c_.joint.input) = gather_.x();
    address(c_.joint.target) = gather_.y();
    if (call.weights.any()) {
      shares_ = Arena(checked_mul(most_rows_, size_of(c_.program.graph().type)));
      address(c_.joint.shares) = shares_.data();
      loss_weights_.resize(static_cast<std::size_t>(most_rows_));
      if (call.weights.metrics) metric_weights_.resize(static_cast<std::size_t>(most_rows_));
    }
    output_bytes_ = c_.program.graph().count(c_.joint.output, 1) * size_of(c_.program.graph().type);
    if (call.begin.at > 0) {
      result_.position = call.begin;
      tally_.sums = call.begin.sums;
      number_ = batches_.beginning_at(call.begin.at);
      find_order(0);
    }
    c_.program.bind_views(*lease_);
    state_.begin();
    if (copy_) copy_->bind(*lease_);
    if (rides_) targets_ = copy_ ? copy_->targets() : stored_targets(c_.program.graph(), optimizer);
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
      if (!has_room()) result_.means.reserve(result_.means.size() + 1024 * tally_.means());
      run_team(crowding_.members(), [&](const Team& team) { slice(team); });
    }
  }

  void*& address(ValueId id) { return lease_->address[static_cast<std::size_t>(id)]; }

  bool complete() const { return epoch_ == call_.epochs || result_.steps == call_.most_steps; }

  // Steps from where the run stands until it ends, or until the team should be formed anew. The leading
  // member decides when, before a barrier; the others read it behind.
  void slice(const Team& team) {
    Index epoch = epoch_,
          number = number_;  // every member counts for itself; the leading one keeps the books
    StepScalars place = scalars_;
    if (team.leads()) over_ = complete();
    if (team.leads() && !over_ && number == 0) begin_epoch(epoch);
    team.barrier();
    if (over_) return;
    for (;;) {
      const Batch batch = batches_[number];
      place.before = batch.before;
      gather_.take(team, order_.data() + batch.at, batch.rows, place);
      if (call_.weights.any()) weigh(team, batch);
      team.barrier();
      if (over_ || !train(team, batch, epoch, number)) return;
      if (batch.last) ++place.step;
      if (++number == batches_.count()) number = 0, ++epoch;
      if (team.leads()) keep_books(team, batch, epoch, number);
      if (number != 0) continue;
      team.barrier();  // the next epoch's order is ready, if there is one
      if (over_) return;
    }
  }

  // Behind a batch; the next is number `number` of epoch `epoch`.
  void keep_books(const Team& team, const Batch& batch, Index epoch, Index number) {
    epoch_ = epoch;
    number_ = number;
    if (batch.last) {
      state_.commit();
      ++scalars_.step;
      ++result_.steps;
      result_.position.at = number == 0 ? 0 : batch.at + batch.rows;
      std::copy(tally_.sums.begin(), tally_.sums.end(), result_.position.sums.begin());
    }
    if (number == 0) end_epoch();
    over_ = crowding_.ends_slice(team.asleep()) || !has_room() || complete();
    if (number == 0 && !over_) begin_epoch(epoch);
  }

  // For the means of one epoch more.
  bool has_room() const { return result_.means.capacity() - result_.means.size() >= tally_.means(); }

  void begin_epoch(Index epoch) {
    if (epoch == 0 && !call_.begin.sums.empty())
      tally_.sums = call_.begin.sums;
    else
      std::fill(tally_.sums.begin(), tally_.sums.end(), 0.0);
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
    tally_.append_means(call_.rows, result_.means);
    ++result_.epochs;
  }

  // Gradients of what was gathered, and a step where they complete one; as every member. False: the run ends
  // before this step.
  bool train(const Team& team, const Batch& batch, Index epoch, Index number) {
    StepScalars scalars = scalars_;
    scalars.before = batch.before;
    scalars.of_step = batch.of_update;
    scalars.first = batch.first;
    const Index rows = batch.rows;
    const int part = rides_ ? c_.first_gradient : c_.program.nodes();
    if (c_.program.calls_python())
      c_.program.run(*lease_, 0, part, rows, scalars, &poll_);
    else
      c_.program.run_member(team, *lease_, 0, part, rows, scalars, &poll_);
    if (poll_.stopped()) {
      if (team.leads()) result_.end = FitEnd::interrupted;
      return false;
    }
    if (call_.outputs) record(team, batch.at, rows);
    const bool sound = !team.leads() || add_up(rows);
    const bool ends = number + 1 == batches_.count() && epoch + 1 == call_.epochs;
    const bool last = ends || result_.steps + 1 == call_.most_steps;
    const bool good = sums_up_ ? step_summed(team, batch, scalars, sound)
                      : rides_ ? step_riding(team, rows, scalars, sound, last)
                               : stepper_.step(team, sound);
    if (!good && team.leads()) diverge(number);
    return good;
  }

  // Gradients of several batches are summed where they lie, and no update rides on them.
  bool step_summed(const Team& team, const Batch& batch, const StepScalars& scalars, bool sound) {
    if (rides_)
      c_.program.run_member(team, *lease_, c_.first_gradient, c_.program.nodes(), batch.rows, scalars);
    if (batch.last) return stepper_.step(team, sound);
    if (team.leads()) sound_ = sound;
    team.barrier();  // before the batch is overwritten, too: the leading member was reading it
    return sound_;
  }

  // The gradients, each followed by its update while it is in cache. A step commits whole: nothing is written
  // before a bound on every gradient is known; where the bound is too high for that, the gradients are made
  // first and looked at. Only the last step's are kept, for `.grad`.
  bool step_riding(const Team& team, Index rows, const StepScalars& scalars, bool sound, bool last) {
    const bool rides = stepper_.bounded(team, static_cast<double>(rows), largest(team, c_.dz, rows),
                                        largest(team, c_.inputs, rows), sound);
    RidingUpdate update{stepper_.rule(), stepper_.args_now(), targets_, last};
    c_.program.run_member(team, *lease_, c_.first_gradient, c_.program.nodes(), rows, scalars, nullptr,
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

  // The weights of this member's samples of the batch, and their shares of the step's weight, which every
  // member adds up for itself. The shares of a step that weighs nothing are 0, and so is its gradient.
  void weigh(const Team& team, const Batch& batch) {
    const std::int64_t* step = order_.data() + batch.at - batch.before;
    double total = 0;
    for (Index i = 0; i < batch.of_update; ++i) total += call_.weights.loss[step[i]];
    const Span part = team.share(batch.rows);
    for (Index i = part.begin; i < part.end; ++i) {
      const std::int64_t row = step[batch.before + i];
      const double weight = call_.weights.loss[row], share = total > 0 ? weight / total : 0;
      loss_weights_[static_cast<std::size_t>(i)] = weight;
      if (call_.weights.metrics) metric_weights_[static_cast<std::size_t>(i)] = call_.weights.metrics[row];
      if (c_.program.graph().type == DType::f64)
        reinterpret_cast<double*>(shares_.data())[i] = share;
      else
        reinterpret_cast<float*>(shares_.data())[i] = static_cast<float>(share);
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
    const SampleWeights weights{loss_weights_.empty() ? nullptr : loss_weights_.data(),
                                metric_weights_.empty() ? nullptr : metric_weights_.data()};
    const double loss = Tally::sum(c_.program.operand(*lease_, c_.joint.loss, rows), weights.loss);
    if (!std::isfinite(loss)) return false;
    tally_.add(loss, c_.program.operand(*lease_, c_.joint.output, rows),
               c_.program.operand(*lease_, c_.joint.target, rows), weights);
    return true;
  }

  void diverge(Index number) {
    result_.end = FitEnd::diverged;
    result_.batch = number + 1;
    result_.reason = sound_ ? stepper_.reason() : "loss";
  }

  const Compiled& c_;
  const FitCall& call_;
  Stepper stepper_;
  const StateUpdate state_;
  const WorkingCopy* copy_;
  const bool rides_;  // the update on the gradients
  std::vector<UpdateTarget> targets_;
  Poll& poll_;
  FitResult& result_;
  const Batches batches_;
  const bool sums_up_;     // several batches make a step
  const Index most_rows_;  // of a batch
  const Lease lease_;
  Gather gather_;
  std::vector<std::int64_t> order_;
  Tally tally_;
  Arena shares_;                                       // where samples have weights: of the batch's
  std::vector<double> loss_weights_, metric_weights_;  // of a batch
  StepScalars scalars_;
  Index output_bytes_ = 0;        // of a sample
  Index epoch_ = 0, number_ = 0;  // where the run stands: the batch to come
  Crowding& crowding_;
  bool over_ = false;
  bool sound_ = true;  // the losses of batches whose step is yet to come
};

Trainer::Trainer(Graph graph, ValueId output, LossKind loss, std::vector<Metric> metrics, Index batch_size,
                 bool keeps_output, Index per_step)
    : graph_(std::move(graph)),
      output_(output),
      loss_(loss),
      metrics_(std::move(metrics)),
      batch_size_(batch_size),
      per_step_(per_step),
      keeps_output_(keeps_output) {
  require(batch_size >= 1, ErrorKind::value, "fit: batch_size is ", batch_size, ", not at least 1");
  require(per_step >= 1, ErrorKind::value, "fit: accumulate is ", per_step, ", not at least 1");
}

Trainer::~Trainer() = default;

const Trainer::Compiled* Trainer::compiled(bool labels, bool weighted, Form form) {
  const auto [entry, fresh] = programs_.try_emplace({labels, weighted, form});
  if (!fresh) return entry->second.get();
  LossGraph joint(graph_, output_, loss_, labels, weighted);
  Graph step = joint.graph;
  std::vector<ValueId> keep{joint.loss};
  if (keeps_output_ || !metrics_.empty()) keep.push_back(joint.output);
  pool_first(step, keep);
  differentiate(step, joint.loss, no_value, joint.input, false, per_step_ > 1);
  fuse(step, keep);
  if (form != Form::stepped && !updates_may_ride(step)) return nullptr;
  if (form == Form::copied) {
    prefer_panels(step);
    prefer_listed(step, joint.input,
                  cpu::backend.most_outputs_of_listed(step.type, step.info(joint.input).dims.count()));
  }
  const int gradients = form == Form::stepped ? 0 : gather_gradients(step);
  entry->second =
      std::make_unique<Compiled>(form, std::move(joint), std::move(step), keep, batch_size_, gradients);
  return entry->second.get();
}

Trainer::Form Trainer::worth() const {
  if (const std::optional<Form> form = forced().load()) return *form;
  Index bytes = 0, elements = 0, widths = 0;
  for (const ParameterRef& p : graph_.parameters) {
    const Shape& dims = graph_.info(p.value).dims;
    elements += dims.count();
    bytes += dims.count() * size_of(graph_.info(p.value).type);
    if (dims.rank() == 2) widths += dims[0] + dims[1];
  }
  if (bytes <= small_parameters) return Form::stepped;
  if (batch_size_ >= fewest_rows_to_copy && batch_size_ <= most_rows_to_copy && bytes <= most_bytes_to_copy)
    return Form::copied;
  return bytes >= fewest_bytes_to_ride && elements / batch_size_ > widths ? Form::riding : Form::stepped;
}

// By network, batch size and optimizer alone, so that a run in parts has the bits of the whole.
const Trainer::Compiled& Trainer::chosen(const FitCall& call, const Optimizer& optimizer) {
  const bool weighted = call.weights.any(), may = Stepper::settled(optimizer);
  const Compiled* program = may ? compiled(call.labels, weighted, worth()) : nullptr;
  if (program && walks_singly(program->program.graph(), optimizer)) return *program;
  return *compiled(call.labels, weighted, Form::stepped);
}

void Trainer::run(const FitCall& call, const Optimizer& optimizer, Poll& poll, FitResult& result) {
  require(call.rows >= 1, ErrorKind::value, "fit: no samples");
  batches(call).beginning_at(call.begin.at);
  const std::size_t sums = Tally(loss_.loss, metrics_, call.weights.any()).size();
  require((call.begin.at == 0 && call.begin.sums.empty()) || call.begin.sums.size() == sums, ErrorKind::value,
          "fit: begin holds ", call.begin.sums.size(), " sums for ", sums);
  require(!call.outputs || keeps_output_, ErrorKind::value, "fit: this trainer keeps no outputs");
  result.position = {0, call.start.step, std::vector<double>(sums, 0.0)};
  if (call.order)
    for (Index i = 0; i < checked_mul(call.epochs, call.rows); ++i)
      require(call.order[i] >= 0 && call.order[i] < call.rows, ErrorKind::value, "fit: order holds ",
              call.order[i], ", samples are numbered 0 to ", call.rows - 1);
  const Compiled& program = chosen(call, optimizer);
  if (program.form != Form::copied) return Loop(program, *this, call, optimizer, nullptr, poll, result).run();
  const WorkingCopy copy(cpu::backend, program.program.graph(), optimizer);
  Optimizer on_copy = optimizer;
  on_copy.ranges = copy.ranges();
  Loop(program, *this, call, on_copy, &copy, poll, result).run();
}

void Trainer::force(std::optional<Form> form) { forced() = form; }

std::string Trainer::describe() {
  const bool labels = loss_.loss == Loss::cross_entropy || loss_.loss == Loss::cross_entropy_probabilities;
  const Compiled* program = compiled(labels, false, worth());
  if (!program) program = compiled(labels, false, Form::stepped);
  return program->program.describe("training step", program->first_gradient > 0);
}

}  // namespace gemmule
