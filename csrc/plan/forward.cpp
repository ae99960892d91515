#include "plan/forward.h"

#include <algorithm>
#include <cstring>

#include "plan/crowding.h"

namespace gemmule {
namespace {

// A forward program for at most `capacity` rows at once, or fewer where their values would not stay in a last
// level of cache: ResNet-20 on images of 32 x 32 predicts 12 % more of them a second in chunks of 32 than of
// 256. Smaller chunks would leave a team idle.
Program in_cache(Graph graph, Index capacity, const std::vector<ValueId>& keep) {
  constexpr Index most_bytes = 16 * 1024 * 1024, fewest_rows = 32;
  pool_first(graph, keep);
  fuse(graph, keep);
  while (capacity > fewest_rows && place(graph, capacity, keep).bytes > most_bytes)
    capacity = std::max(fewest_rows, capacity / 2);
  return Program(cpu::backend, std::move(graph), capacity, keep);
}

void*& address(Execution& execution, ValueId id) { return execution.address[static_cast<std::size_t>(id)]; }

// Externals are only read.
void bind_external(Execution& execution, ValueId id, const std::byte* data) {
  address(execution, id) = const_cast<std::byte*>(data);
}

Index bytes_of(const Graph& graph, ValueId id, Index rows) {
  return checked_mul(graph.count(id, rows), size_of(graph.info(id).type));
}

// Whether a node writes the value, so that it can be told to write it elsewhere; a view or an input cannot.
bool is_computed(const Graph& graph, ValueId id) {
  const int producer = graph.producer(id);
  return producer >= 0 && graph.nodes[static_cast<std::size_t>(producer)].op != OpKind::reshape;
}

// The team for chunks of `rows` rows.
int members_for(const Program& program, Index rows) {
  return cores_are_crowded() ? 1 : program.team_size(std::min(rows, program.capacity()));
}

// For chunks of at most the program's capacity, all in one team if it can: prepare(first row), by one member,
// and body(team, first row, rows), which ends with a barrier. A body may be interrupted: then false.
template <class Prepare, class Body>
bool in_chunks(const Program& program, const Execution& execution, Index rows, const Poll& poll,
               const Prepare& prepare, const Body& body) {
  const auto loop = [&](const Team& team) {
    for (Index at = 0; at < rows; at += program.capacity()) {
      if (at > 0) {
        if (team.leads()) prepare(at);
        team.barrier();
      }
      body(team, at, std::min(rows - at, program.capacity()));
      if (poll.stopped()) return;  // before a barrier: the leading member may ask again behind it
    }
  };
  prepare(0);
  if (program.calls_python())
    loop(Team::serial());
  else
    run_team(execution.members, loop);
  return !poll.stopped();
}

void run_all(const Program& program, const Team& team, Execution& execution, Index rows, Poll& poll) {
  if (program.calls_python())
    program.run(execution, 0, program.nodes(), rows, {}, &poll);
  else
    program.run_member(team, execution, 0, program.nodes(), rows, {}, &poll);
}

}  // namespace

ValueId input_of(const Graph& graph) {
  for (std::size_t i = 0; i < graph.values.size(); ++i)
    if (graph.values[i].home == Home::external) return static_cast<ValueId>(i);
  fail(ErrorKind::value, "the graph has no input");
}

Predictor::Predictor(Graph graph, ValueId output, Index capacity)
    : input_(input_of(graph)), output_(output), program_(in_cache(std::move(graph), capacity, {output})) {}

bool Predictor::run(const std::byte* x, Index rows, std::byte* out, Poll& poll) const {
  const Graph& graph = program_.graph();
  const Lease execution(program_, members_for(program_, rows));
  const Index in_row = bytes_of(graph, input_, 1), out_row = bytes_of(graph, output_, 1);
  const bool direct = is_computed(graph, output_);
  const auto prepare = [&](Index at) {
    bind_external(*execution, input_, x + at * in_row);
    if (direct) bind_external(*execution, output_, out + at * out_row);
    program_.bind_views(*execution);
  };
  return in_chunks(program_, *execution, rows, poll, prepare, [&](const Team& team, Index at, Index count) {
    run_all(program_, team, *execution, count, poll);
    if (!direct && team.leads())
      std::memcpy(out + at * out_row, address(*execution, output_),
                  static_cast<std::size_t>(count * out_row));
  });
}

void trace(Graph graph, const std::vector<ValueId>& values, const std::byte* x, Index rows,
           const std::function<void(std::size_t, const Operand&)>& take) {
  const ValueId input = input_of(graph);
  const Program program(cpu::backend, std::move(graph), std::max<Index>(rows, 1), values, false);
  const Lease execution(program, program.team_size(rows));
  bind_external(*execution, input, x);
  if (rows > 0) program.run(*execution, 0, program.nodes(), rows, {});
  for (std::size_t i = 0; i < values.size(); ++i) take(i, program.operand(*execution, values[i], rows));
}

Tape::Tape(Graph graph, ValueId output, Index capacity) : input_(input_of(graph)), output_(output) {
  seed_ = graph.input(graph.info(output).dims, "d(output)", graph.type);
  pool_first(graph, {output_});
  input_grad_ = differentiate(graph, output, seed_, input_, true, true);
  std::vector<ValueId> keep = {output_};
  if (input_grad_ != no_value) keep.push_back(input_grad_);
  fuse(graph, keep);
  program_ = std::make_unique<Program>(cpu::backend, std::move(graph), capacity, keep);
  program_->flush_subnormals();
  state_.emplace(program_->graph());
}

void Tape::copy_out(ValueId value, std::byte* dst) const {
  std::memcpy(dst, address(*execution_, value),
              static_cast<std::size_t>(bytes_of(program_->graph(), value, rows_)));
}

void Tape::forward(const std::byte* x, Index rows, std::byte* out, const StepScalars& scalars) {
  const int members = members_for(*program_, rows);
  if (!execution_ || execution_->room < members || execution_->variant != program_->backend().variant()) {
    execution_ = nullptr;
    execution_ = program_->checkout(members);
  }
  execution_->members = members;
  rows_ = 0;  // until it has succeeded
  bind_external(*execution_, input_, x);
  state_->begin();
  program_->run(*execution_, 0, program_->end_of(output_), rows, scalars);
  state_->commit();
  rows_ = rows;
  scalars_ = scalars;
  copy_out(output_, out);
}

void Tape::backward(const std::byte* dout, std::byte* dx) {
  bind_external(*execution_, seed_, dout);
  program_->run(*execution_, program_->end_of(output_), program_->nodes(), rows_, scalars_);
  if (input_grad_ != no_value)
    copy_out(input_grad_, dx);
  else
    std::memset(dx, 0, static_cast<std::size_t>(bytes_of(program_->graph(), input_, rows_)));
}

LossGraph::LossGraph(Graph network, ValueId network_output, LossKind kind, bool labels, bool weighted)
    : graph(std::move(network)), input(input_of(graph)), output(network_output) {
  target =
      graph.input(labels ? Shape{} : graph.info(output).dims, "target", labels ? DType::i64 : graph.type);
  std::vector<ValueId> in{output, target};
  if (weighted) in.push_back(shares = graph.input(Shape{}, "shares", graph.type));
  Attrs attrs;
  attrs.loss = kind.loss;
  attrs.parameter = kind.parameter;
  const bool custom = kind.loss == Loss::custom;
  require(!custom || graph.custom_loss.value, ErrorKind::value, "the graph has no custom loss");
  loss = graph.apply(custom ? OpKind::python_loss : OpKind::loss, std::move(in), attrs, "loss");
  if (!custom) fuse_loss(graph, loss);
}

struct Evaluator::Compiled {
  Compiled(LossGraph g, Index capacity)
      : input(g.input),
        output(g.output),
        target(g.target),
        loss(g.loss),
        program(in_cache(std::move(g.graph), capacity, {g.output, g.loss})) {}
  ValueId input, output, target, loss;
  Program program;
};

Evaluator::Evaluator(Graph graph, ValueId output, LossKind loss, std::vector<Metric> metrics, Index capacity)
    : graph_(std::move(graph)),
      output_(output),
      loss_(loss),
      metrics_(std::move(metrics)),
      capacity_(capacity) {}

const Evaluator::Compiled& Evaluator::compiled(bool labels) {
  const std::lock_guard lock(mutex_);
  auto& entry = programs_[labels];
  if (!entry) entry = std::make_shared<Compiled>(LossGraph(graph_, output_, loss_, labels, false), capacity_);
  return *entry;
}

std::vector<double> Evaluator::run(const std::byte* x, const std::byte* y, bool labels,
                                   const SampleWeights& weights, Index rows, Poll& poll) {
  const Compiled& c = compiled(labels);
  const Graph& graph = c.program.graph();
  const Lease execution(c.program, members_for(c.program, rows));
  const Index x_row = bytes_of(graph, c.input, 1), y_row = bytes_of(graph, c.target, 1);
  Tally tally(loss_.loss, metrics_, weights.any());
  const auto prepare = [&](Index at) {
    bind_external(*execution, c.input, x + at * x_row);
    bind_external(*execution, c.target, y + at * y_row);
    c.program.bind_views(*execution);
  };
  const bool done =
      in_chunks(c.program, *execution, rows, poll, prepare, [&](const Team& team, Index at, Index count) {
        run_all(c.program, team, *execution, count, poll);
        if (!team.leads() || poll.stopped()) return;
        const SampleWeights here = weights.from(at);
        const double loss = Tally::sum(c.program.operand(*execution, c.loss, count), here.loss);
        tally.add(loss, c.program.operand(*execution, c.output, count),
                  c.program.operand(*execution, c.target, count), here);
      });
  std::vector<double> means;
  if (done) tally.append_means(rows, means);
  return means;
}

}  // namespace gemmule
