// The epoch loop and the optimizer step.
#include <map>
#include <optional>

#include "bindings/bindings.h"
#include "bindings/programs.h"
#include "bindings/updates.h"
#include "core/names.h"
#include "plan/train.h"

namespace gemmule::bindings {
namespace {

using PyPosition = std::tuple<Index, std::uint64_t, std::vector<double>>;  // see plan/train.h

// One rate for every update that the call can make, and none above the largest that was named.
const double* checked_rates(const py::array& rates, double largest, const FitCall& call,
                            const Batches& batches, Index per_step) {
  require_array(rates, DType::f64, "fit: rates");
  const Index done = batches.beginning_at(call.begin.at) / per_step;
  Index updates = checked_mul(call.epochs, batches.updates()) - done;
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
  PyTrainer(const PyGraph& graph, ValueId output, const std::string& loss, double parameter,
            const std::vector<std::string>& metrics, Index batch_size, bool keeps_output, Index per_step)
      : trainer(graph.graph, output, LossKind{loss_of(loss), parameter}, metrics_of(metrics), batch_size,
                keeps_output, per_step),
        per_step(per_step) {}

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
                             std::optional<py::array> rates, std::optional<py::array> outputs, double scale,
                             const std::vector<Index>& sizes, const std::optional<py::array>& weights,
                             const std::optional<py::array>& metric_weights, const Augmenter* augmenter) {
    result = {};  // first: whatever is raised below, it says how far this call came
    const Graph& g = trainer.graph();
    const Shape& dims = g.info(trainer.output()).dims;
    FitCall call;
    call.samples.bytes = has_type(x, DType::u8);
    call.rows = require_batch(x, call.samples.bytes ? DType::u8 : g.type, g.info(input_of(g)).dims, "fit: x");
    call.samples.scale = scale;
    if (augmenter) require_batch(x, augmenter->type(), augmenter->image(), "fit: x to augment");
    call.samples.augmenter = augmenter;
    call.sizes = sizes;
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
    call.weights = weights_of(weights, metric_weights, call.rows, "fit");
    call.samples.x = bytes(x);
    call.samples.y = bytes(y);
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
    Optimizer optimizer = optimizer_of(rule_name, hyper, updates, ranges);
    if (rates)
      optimizer.rates = checked_rates(*rates, optimizer.args.lr, call, trainer.batches(call), per_step);
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
  Index per_step;
  FitResult result;
};

void force_training(const std::string& form) {
  using Form = Trainer::Form;
  static const std::map<std::string, std::optional<Form>> forms{
      {"", std::nullopt}, {"stepped", Form::stepped}, {"riding", Form::riding}, {"copied", Form::copied}};
  const auto found = forms.find(form);
  require(found != forms.end(), ErrorKind::value, "force_training: \"", form,
          "\", expected \"stepped\", \"riding\", \"copied\" or \"\"");
  Trainer::force(found->second);
}

}  // namespace

void bind_training(py::module_& m) {
  py::class_<PyTrainer>(m, "Trainer")
      .def(py::init<const PyGraph&, ValueId, const std::string&, double, const std::vector<std::string>&,
                    Index, bool, Index>(),
           py::arg("graph"), py::arg("output"), py::arg("loss"), py::arg("parameter"), py::arg("metrics"),
           py::arg("batch_size"), py::arg("keeps_output") = false, py::arg("per_step") = 1)
      .def("run", &PyTrainer::run, py::arg("x"), py::arg("y"), py::kw_only(), py::arg("epochs"),
           py::arg("order"), py::arg("shuffle"), py::arg("key"), py::arg("step"), py::arg("rule"),
           py::arg("hyper"), py::arg("updates"), py::arg("ranges"), py::arg("begin") = py::none(),
           py::arg("steps") = py::none(), py::arg("rates") = py::none(), py::arg("outputs") = py::none(),
           py::arg("scale") = 1.0, py::arg("sizes") = std::vector<Index>(), py::arg("weights") = py::none(),
           py::arg("metric_weights") = py::none(), py::arg("augmenter") = py::none())
      .def_property_readonly("position",
                             [](const PyTrainer& self) {
                               const Position& p = self.result.position;
                               return PyPosition(p.at, p.epoch_step, p.sums);
                             })
      .def_property_readonly("steps_done", [](const PyTrainer& self) { return self.result.steps; })
      .def_property_readonly("epochs_done", [](const PyTrainer& self) { return self.result.epochs; })
      .def_property_readonly("partial", &PyTrainer::epochs)
      .def("describe", [](PyTrainer& self) { return self.trainer.describe(); });
  m.def("force_training", &force_training, py::arg("form"));
  m.def("fill_workspaces", &fill_workspaces, py::arg("byte").none(true));
}

}  // namespace gemmule::bindings
