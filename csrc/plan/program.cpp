#include "plan/program.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "core/subnormals.h"
#include "graph/op.h"

namespace gemmule {
namespace {

std::atomic<bool>& verbose_flag() {
  static std::atomic<bool> flag = [] {
    const char* wish = std::getenv("GEMMULE_VERBOSE");
    return wish && *wish && std::string(wish) != "0";
  }();
  return flag;
}

std::atomic<int> workspace_fill{-1};

using Clock = std::chrono::steady_clock;

// The operands of one call; no op reads more than six values.
struct Call {
  Call(const Program& program, const Execution& execution, const Node& node, Index rows) {
    for (ValueId id : node.in) in[count++] = program.operand(execution, id, rows);
    out = program.operand(execution, node.out, rows);
    if (node.also != no_value) also = program.operand(execution, node.also, rows);
  }
  std::span<const Operand> inputs() const { return {in, count}; }

  Operand in[6];
  std::size_t count = 0;
  Operand out;
  Operand also{};
};

// Row r by its share, or all by 1 / samples. A share of 0 makes zeros.
template <class T>
void scale_rows(const Operand& x, const T* shares, Index samples) {
  for (Index r = 0; r < x.rows; ++r) {
    T* row = x.as<T>() + r * x.cols;
    const T factor = shares ? shares[r] : T(1) / static_cast<T>(samples);
    for (Index j = 0; j < x.cols; ++j) row[j] = factor == 0 ? T(0) : factor * row[j];
  }
}

void run_python_loss(const PythonLoss& loss, OpKind op, std::span<const Operand> in, const Operand& out,
                     Index samples) {
  const Operand &pred = in[0], &target = in[1];
  const bool labels = target.type == DType::i64;
  if (op == OpKind::python_loss)
    return loss.value(pred.rows, pred.data, target.data, labels, out.as<double>());
  loss.gradient(pred.rows, pred.data, target.data, labels, out.data);
  const void* shares = in.size() > 2 ? in[2].data : nullptr;
  if (out.type == DType::f64)
    scale_rows(out, static_cast<const double*>(shares), samples);
  else
    scale_rows(out, static_cast<const float*>(shares), samples);
}

std::string shape_of(const Operand& x) { return std::to_string(x.rows) + "x" + std::to_string(x.cols); }

void report(const Program& program, const Node& node, const OpCall& call, Index rows, double seconds) {
  std::string shapes;
  for (const Operand& x : call.in) shapes.append(shapes.empty() ? "" : " ").append(shape_of(x));
  const double flops = rule(node.op).cost(program.graph(), node, rows);
  std::fprintf(stderr, "gemmule: %-15s %-24s -> %-10s path=\"%s\" isa=%s threads=%d %.1f us %.1f GFLOP/s\n",
               rule(node.op).name, shapes.c_str(), shape_of(call.out).c_str(),
               program.backend().path(node.op, program.graph().type, call), program.backend().variant(),
               call.team.size(), seconds * 1e6, flops / seconds * 1e-9);
}

}  // namespace

bool verbose() { return verbose_flag().load(std::memory_order_relaxed); }
void set_verbose(bool on) { verbose_flag() = on; }

void fill_workspaces(std::optional<std::uint8_t> byte) { workspace_fill = byte ? int{*byte} : -1; }

Program::Program(const Backend& backend, Graph graph, Index capacity, std::vector<ValueId> keep, bool share)
    : backend_(backend), graph_(std::move(graph)), capacity_(capacity) {
  require(capacity >= 1, ErrorKind::value, "a program needs a capacity of at least one row, not ", capacity);
  placement_ = place(graph_, capacity, keep, share);
  for (const Node& node : graph_.nodes) {
    calls_python_ |= is_python(node.op);
    require(is_python(node.op) || backend_.kernel(node.op, graph_.type), ErrorKind::state, "the backend ",
            backend_.name, " has no kernel for ", rule(node.op).name);
    flops_per_row_ += rule(node.op).cost(graph_, node, 1);
  }
  for (const Value& value : graph_.values) {
    const ValueInfo& info = value.info;
    const Index count = info.dims.count(), inner = info.dims.rank() ? info.dims.back() : 1;
    const Index rows = info.batched || info.dims.rank() < 2 ? 1 : info.dims[0];
    const bool panels =
        value.parameter >= 0 && graph_.parameters[static_cast<std::size_t>(value.parameter)].panels;
    layout_.push_back({{nullptr, rows, rows > 0 ? count / rows : 0, inner, info.type, panels, value.listed,
                        info.dims.dims()},
                       info.batched});
  }
  find_barriers();
}

void Program::find_barriers() {
  // Memory as an interval in one of four spaces: the arena's bytes; parameters, gradients and externals by
  // number.
  struct Region {
    Home space;
    Index begin, end;
    bool overlaps(const Region& other) const {
      return space == other.space && begin < other.end && other.begin < end;
    }
  };
  const auto region_of = [&](ValueId id) -> Region {
    while (graph_.value(id).home == Home::arena && placement_.offset[static_cast<std::size_t>(id)] < 0)
      id = graph_.nodes[static_cast<std::size_t>(graph_.producer(id))].in[0];  // a view of what it reshapes
    const Value& value = graph_.value(id);
    if (value.home == Home::arena) {
      const Index offset = placement_.offset[static_cast<std::size_t>(id)];
      return {Home::arena, offset, offset + graph_.count(id, capacity_) * size_of(value.info.type)};
    }
    const Index number = value.home == Home::external ? id : value.parameter;
    return {value.home, number, number + 1};
  };
  const auto overlap_any = [](const std::vector<Region>& list, const Region& region) {
    return std::any_of(list.begin(), list.end(), [&](const Region& other) { return region.overlaps(other); });
  };
  std::vector<Region> read, written;  // since the last barrier
  barrier_after_.assign(graph_.nodes.size(), false);
  for (std::size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    std::vector<Region> made{region_of(node.out)};
    if (node.also != no_value) made.push_back(region_of(node.also));
    bool conflict = std::any_of(made.begin(), made.end(), [&](const Region& region) {
      return overlap_any(read, region) || overlap_any(written, region);
    });
    for (ValueId id : node.in) conflict |= overlap_any(written, region_of(id));
    if (conflict) {
      barrier_after_[i - 1] = true;
      read.clear();
      written.clear();
    }
    for (ValueId id : node.in) read.push_back(region_of(id));
    written.insert(written.end(), made.begin(), made.end());
  }
}

int Program::end_of(ValueId value) const { return graph_.producer(value) + 1; }

// Members meet after every op. A single row's work takes twice its share of a batch's: weights stream by.
int Program::team_size(Index rows) const {
  const double flops = flops_per_row_ * static_cast<double>(std::max<Index>(rows, 2));
  return flops < std::max(serial_below, op_serial_below * static_cast<double>(nodes())) ? 1 : num_threads();
}

Operand Program::operand(const Execution& execution, ValueId value, Index rows) const {
  const Layout& layout = layout_[static_cast<std::size_t>(value)];
  Operand x = layout.at_one_row;
  x.data = execution.address[static_cast<std::size_t>(value)];
  if (layout.batched) x.rows = rows;
  return x;
}

Index Program::workspace_bytes(const Execution& execution) const {
  Index bytes = 0;
  const Team alone = Team::serial();
  const StepScalars scalars;
  for (const Node& node : graph_.nodes) {
    const Call call(*this, execution, node, capacity_);
    bytes =
        std::max(bytes, backend_.workspace(node.op, graph_.type,
                                           {alone, node.attrs, call.inputs(), call.out, nullptr, scalars}));
  }
  return round_up(bytes, alignment);
}

std::unique_ptr<Execution> Program::checkout(int members) const {
  {
    const std::lock_guard lock(pool_mutex_);
    for (auto& free : pool_)
      if (free->room >= members && free->variant == backend_.variant()) {
        std::swap(free, pool_.back());
        std::unique_ptr<Execution> execution = std::move(pool_.back());
        pool_.pop_back();
        execution->members = members;
        execution->timed = verbose();
        return execution;
      }
  }
  auto execution = std::make_unique<Execution>();
  execution->arena = Arena(placement_.bytes);
  execution->variant = backend_.variant();
  execution->members = execution->room = members;
  execution->timed = verbose();
  execution->address.assign(graph_.values.size(), nullptr);
  for (std::size_t i = 0; i < graph_.values.size(); ++i) {
    const Value& value = graph_.values[i];
    if (value.home == Home::arena && placement_.offset[i] >= 0)
      execution->address[i] = execution->arena.data() + placement_.offset[i];
    if (value.parameter >= 0) {
      const ParameterRef& p = graph_.parameters[static_cast<std::size_t>(value.parameter)];
      std::byte* flat = value.home == Home::parameter ? p.store->values() : p.store->grads();
      execution->address[i] =
          flat + p.store->offsets()[static_cast<std::size_t>(p.segment)] * size_of(p.store->type());
    }
  }
  execution->workspace_bytes = workspace_bytes(*execution);
  execution->workspace = Arena(checked_mul(execution->workspace_bytes, members));
  if (const int fill = workspace_fill; fill >= 0)
    std::memset(execution->workspace.data(), fill, static_cast<std::size_t>(execution->workspace.bytes()));
  return execution;
}

void Program::give_back(std::unique_ptr<Execution> execution) const {
  const std::lock_guard lock(pool_mutex_);
  std::erase_if(pool_, [&](const auto& free) { return free->variant != execution->variant; });
  pool_.push_back(std::move(execution));
}

void Program::bind_views(Execution& execution) const {
  for (const Node& node : graph_.nodes)
    if (node.op == OpKind::reshape)
      execution.address[static_cast<std::size_t>(node.out)] =
          execution.address[static_cast<std::size_t>(node.in[0])];
}

void Program::run_python(Execution& execution, const Node& node, Index rows,
                         const StepScalars& scalars) const {
  const Call call(*this, execution, node, rows);
  if (node.op == OpKind::python_loss || node.op == OpKind::python_loss_grad)
    return run_python_loss(graph_.custom_loss, node.op, call.inputs(), call.out, scalars.samples(rows));
  const PythonOp& op = graph_.callbacks[static_cast<std::size_t>(node.attrs.callback)];
  if (node.op == OpKind::python)
    op.forward(rows, call.in[0].data, call.out.data);
  else
    op.backward(rows, call.in[0].data, call.in[1].data, call.in[2].data, call.out.data);
}

void Program::run(Execution& execution, int begin, int end, Index rows, const StepScalars& scalars,
                  Poll* poll) const {
  bind_views(execution);
  execution.timed = verbose();
  for (int at = begin; at < end;) {
    const Node& node = graph_.nodes[static_cast<std::size_t>(at)];
    if (is_python(node.op)) {
      run_python(execution, node, rows, scalars);
      ++at;
      continue;
    }
    int stop = at;
    while (stop < end && !is_python(graph_.nodes[static_cast<std::size_t>(stop)].op)) ++stop;
    run_team(execution.members,
             [&](const Team& team) { run_member(team, execution, at, stop, rows, scalars, poll); });
    if (poll && poll->stopped()) return;
    at = stop;
  }
}

void Program::run_member(const Team& team, Execution& execution, int begin, int end, Index rows,
                         const StepScalars& scalars, Poll* poll, RidingUpdate* update) const {
  std::optional<SubnormalsAreZeros> flush;
  if (flushes_) flush.emplace();
  void* workspace = execution.workspace.data() + execution.workspace_bytes * team.rank();
  const bool timed = execution.timed;
  // At every other barrier: a member that is late to read one answer must not meet the next already.
  bool polls = poll != nullptr;
  for (int i = begin; i < end; ++i) {
    const Node& node = graph_.nodes[static_cast<std::size_t>(i)];
    const Call call(*this, execution, node, rows);
    OpCall op{team, node.attrs, call.inputs(), call.out, workspace, scalars, nullptr, call.also};
    std::optional<UpdateCall> rider;
    if (update && update->targets[static_cast<std::size_t>(i)].value)
      op.update = &rider.emplace(update->rule, update->args, update->targets[static_cast<std::size_t>(i)],
                                 update->reach, update->keep_gradients);
    const auto start = timed ? Clock::now() : Clock::time_point();
    if (timed)
      team.barrier();  // or others would be done before the leading member has reported the op before
    backend_.kernel(node.op, graph_.type)(op);
    if (!timed && i + 1 < end && !barrier_after_[static_cast<std::size_t>(i)]) continue;
    if (polls && team.leads()) poll->ask();
    team.barrier();
    if (timed && team.leads())
      report(*this, node, op, rows, std::chrono::duration<double>(Clock::now() - start).count());
    if (polls && poll->stopped()) return;
    polls = poll && !polls;
  }
}

}  // namespace gemmule
