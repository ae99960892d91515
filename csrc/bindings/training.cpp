// The epoch loop and the optimizer step.
#include "bindings/bindings.h"
#include "bindings/programs.h"
#include "core/names.h"
#include "plan/train.h"

namespace gemmule::bindings {
namespace {

using Hyper = std::map<std::string, double>;
using PyRange = std::tuple<std::shared_ptr<Store>, py::array, Index, Index>;
using PyPosition = std::tuple<Index, std::uint64_t, std::vector<double>>;  // see plan/train.h

UpdateArgs update_args(const Hyper& hyper) {
  UpdateArgs args;
  for (const auto& [name, value] : hyper) {
    if (name == "lr")
      args.lr = value;
    else if (name == "momentum")
      args.momentum = value;
    else if (name == "nesterov")
      args.nesterov = value != 0;
    else if (name == "weight_decay")
      args.weight_decay = value;
    else if (name == "beta1")
      args.beta1 = value;
    else if (name == "beta2")
      args.beta2 = value;
    else if (name == "eps")
      args.eps = value;
    else
      fail(ErrorKind::value, "update: unknown setting '", name, "'");
  }
  return args;
}

std::vector<ParameterRange> parameter_ranges(Rule rule, const UpdateArgs& args,
                                             const std::vector<PyRange>& ranges) {
  const Index slots = rule != Rule::sgd ? 2 : args.momentum != 0 ? 1 : 0;
  std::vector<ParameterRange> list;
  for (const auto& [store, array, begin, end] : ranges) {
    require_array(array, store->type(), "update: slots", true);
    const Shape shape = shape_of(array);
    require(shape.rank() == 2 && shape[0] >= slots && shape[1] == store->size(), ErrorKind::shape,
            "update: slots ", shape, " do not hold ", slots, " of ", store->size());
    ParameterRange range;
    range.store = store;
    range.begin = begin;
    range.end = end;
    auto* first = static_cast<std::byte*>(const_cast<void*>(array.data()));
    for (Index i = 0; i < slots; ++i) range.slots[i] = first + i * store->size() * size_of(store->type());
    list.push_back(std::move(range));
  }
  return list;
}

// One rate for every update that the call can make, and none above the largest that was named.
const double* checked_rates(const py::array& rates, double largest, const FitCall& call, Index batch_size) {
  require_array(rates, DType::f64, "fit: rates");
  const Index per_epoch = (call.rows + batch_size - 1) / batch_size;
  Index updates = checked_mul(call.epochs, per_epoch) - call.begin.at / batch_size;
  if (call.most_steps >= 0) updates = std::min(updates, call.most_steps);
  require(rates.ndim() == 1 && rates.size() >= updates, ErrorKind::shape, "fit: ", rates.size(),
          " rates for ", updates, " updates");
  const auto* first = static_cast<const double*>(rates.data());
  for (Index i = 0; i < rates.size(); ++i)
    require(first[i] >= 0 && first[i] <= largest, ErrorKind::value, "fit: rate ", first[i], " is not in 0..",
            largest);
  return first;
}

// A trainer and how far its last run came.
struct PyTrainer {
  PyTrainer(const PyGraph& graph, ValueId output, const std::string& loss,
            const std::vector<std::string>& metrics, Index batch_size, bool keeps_output)
      : trainer(graph.graph, output, loss_of(loss), metrics_of(metrics), batch_size, keeps_output) {}

  std::vector<py::tuple> epochs() const {
    const Index width = result.epochs > 0 ? static_cast<Index>(result.means.size()) / result.epochs : 0;
    std::vector<py::tuple> list;
    for (Index epoch = 0; epoch < result.epochs; ++epoch) {
      const auto first = result.means.begin() + epoch * width;
      list.push_back(py::tuple(py::cast(std::vector<double>(first, first + width))));
    }
    return list;
  }

  std::vector<py::tuple> run(const py::array& x, const py::array& y, Index epochs_wanted,
                             std::optional<py::array> order, bool shuffle, std::uint64_t key,
                             std::uint64_t step, const std::string& rule_name, const Hyper& hyper,
                             Index updates, const std::vector<PyRange>& ranges,
                             const std::optional<PyPosition>& begin, std::optional<Index> steps,
                             std::optional<py::array> rates, std::optional<py::array> outputs) {
    result = {};  // first: whatever is raised below, it says how far this call came
    const Graph& g = trainer.graph();
    const Shape& dims = g.info(trainer.output()).dims;
    FitCall call;
    call.rows = require_batch(x, g.type, g.info(input_of(g)).dims, "fit: x");
    call.labels = dtype_of(y, "fit: y") == DType::i64;
    const Index targets =
        call.labels ? require_labels(y, dims, "fit") : require_batch(y, g.type, dims, "fit: y");
    require(targets == call.rows, ErrorKind::shape, "fit: x has ", call.rows, " samples, y ", targets);
    require(epochs_wanted >= 0, ErrorKind::value, "fit: epochs is ", epochs_wanted);
    if (order) {
      const Index lines = require_batch(*order, DType::i64, Shape{call.rows}, "fit: order");
      require(lines == epochs_wanted, ErrorKind::shape, "fit: order has ", lines, " rows for ", epochs_wanted,
              " epochs");
      call.order = static_cast<const std::int64_t*>(order->data());
    }
    call.x = bytes(x);
    call.y = bytes(y);
    call.epochs = epochs_wanted;
    call.shuffle = shuffle;
    call.start = {key, step};
    if (begin) call.begin = {std::get<0>(*begin), std::get<1>(*begin), std::get<2>(*begin)};
    if (steps) {
      require(*steps >= 0, ErrorKind::value, "fit: steps is ", *steps);
      call.most_steps = *steps;
    }
    if (outputs) {
      require(require_batch(*outputs, g.type, dims, "fit: outputs", true) == call.rows, ErrorKind::shape,
              "fit: outputs is not of the ", call.rows, " samples");
      call.outputs = static_cast<std::byte*>(outputs->mutable_data());
    }
    const Rule rule = rule_of(rule_name);
    const UpdateArgs args = update_args(hyper);
    Optimizer optimizer{rule, args, updates, parameter_ranges(rule, args, ranges)};
    if (rates) optimizer.rates = checked_rates(*rates, args.lr, call, trainer.batch_size());
    Poll poll = signal_poll();
    {
      const py::gil_scoped_release release;
      trainer.run(call, optimizer, poll, result);
    }
    if (result.end == FitEnd::interrupted) raise_pending();
    if (result.end == FitEnd::diverged)
      fail(ErrorKind::divergence, "fit: the ", result.reason, " is not finite in epoch ", result.epochs + 1,
           ", batch ", result.batch,
           "; the network holds the step before. A smaller learning rate or scaled inputs help");
    return epochs();
  }

  Trainer trainer;
  FitResult result;
};

void update(const std::string& rule_name, const Hyper& hyper, Index updates,
            const std::vector<PyRange>& ranges) {
  const Rule rule = rule_of(rule_name);
  const UpdateArgs args = update_args(hyper);
  Stepper stepper(cpu::backend, {rule, args, updates, parameter_ranges(rule, args, ranges)});
  Index elements = 0;
  for (const auto& range : ranges) elements += std::get<3>(range) - std::get<2>(range);
  bool done = false;
  {
    const py::gil_scoped_release release;
    // An update moves about 16 bytes an element, a few of them an operation's worth of time.
    run_team(4.0 * static_cast<double>(elements) < serial_below ? 1 : num_threads(), [&](const Team& team) {
      const bool finite = stepper.step(team, true);
      if (team.leads()) done = finite;
    });
  }
  require(done, ErrorKind::divergence, "step: the ", stepper.reason(), " is not finite; nothing was changed");
}

}  // namespace

void bind_training(py::module_& m) {
  py::class_<PyTrainer>(m, "Trainer")
      .def(py::init<const PyGraph&, ValueId, const std::string&, const std::vector<std::string>&, Index,
                    bool>(),
           py::arg("graph"), py::arg("output"), py::arg("loss"), py::arg("metrics"), py::arg("batch_size"),
           py::arg("keeps_output") = false)
      .def("run", &PyTrainer::run, py::arg("x"), py::arg("y"), py::kw_only(), py::arg("epochs"),
           py::arg("order"), py::arg("shuffle"), py::arg("key"), py::arg("step"), py::arg("rule"),
           py::arg("hyper"), py::arg("updates"), py::arg("ranges"), py::arg("begin") = py::none(),
           py::arg("steps") = py::none(), py::arg("rates") = py::none(), py::arg("outputs") = py::none())
      .def_property_readonly("position",
                             [](const PyTrainer& self) {
                               const Position& p = self.result.position;
                               return PyPosition(p.at, p.epoch_step, p.sums);
                             })
      .def_property_readonly("steps_done", [](const PyTrainer& self) { return self.result.steps; })
      .def_property_readonly("epochs_done", [](const PyTrainer& self) { return self.result.epochs; })
      .def_property_readonly("partial", &PyTrainer::epochs)
      .def("describe", [](PyTrainer& self) { return self.trainer.describe(); });
  m.def("set_copying", &set_copying, py::arg("on"));
  m.def("update", &update, py::arg("rule"), py::arg("hyper"), py::arg("updates"), py::arg("ranges"));
}

}  // namespace gemmule::bindings
