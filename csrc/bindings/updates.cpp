#include "bindings/updates.h"

#include "core/names.h"

namespace gemmule::bindings {
namespace {

void set(double& field, double value) { field = value; }
void set(bool& field, double value) { field = value != 0; }
void set(int& field, double value) { field = static_cast<int>(value); }

UpdateArgs update_args(const Hyper& hyper) {
  UpdateArgs args;
  for (const auto& [name, value] : hyper) {
    bool known = false;
    const auto takes = [&, &key = name, number = value](const char* setting, auto& field) {
      if (key != setting) return;
      set(field, number);
      known = true;
    };
    takes("lr", args.lr);
    takes("momentum", args.momentum);
    takes("nesterov", args.nesterov);
    takes("centered", args.centered);
    takes("weight_decay", args.weight_decay);
    takes("beta1", args.beta1);
    takes("beta2", args.beta2);
    takes("eps", args.eps);
    takes("lr_decay", args.lr_decay);
    takes("ns_a", args.muon.coefficients[0]);
    takes("ns_b", args.muon.coefficients[1]);
    takes("ns_c", args.muon.coefficients[2]);
    takes("ns_steps", args.muon.steps);
    takes("ns_eps", args.muon.eps);
    takes("match_rms", args.muon.match_rms);
    takes("vector_lr", args.muon.vector_lr);
    takes("vector_decay", args.muon.vector_decay);
    takes("vector_eps", args.muon.vector_eps);
    takes("l1", args.l1);
    takes("clip_value", args.clip_value);
    takes("clip_norm", args.clip_norm);
    takes("max_norm", args.max_norm);
    takes("ema", args.ema);
    require(known, ErrorKind::value, "update: unknown setting '", name, "'");
  }
  return args;
}

std::vector<ParameterRange> parameter_ranges(Index slots, const std::vector<PyRange>& ranges) {
  std::vector<ParameterRange> list;
  for (const auto& [store, array, begin, end, matrices] : ranges) {
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
    for (const auto& [at, rows, cols] : matrices) range.matrices.push_back({at, rows, cols});
    list.push_back(std::move(range));
  }
  return list;
}

void update(const std::string& rule, const Hyper& hyper, Index updates, const std::vector<PyRange>& ranges) {
  const Optimizer optimizer = optimizer_of(rule, hyper, updates, ranges);
  Stepper stepper(cpu::backend, optimizer);
  // An update moves about 16 bytes an element, a few of them an operation's worth of time; Muon multiplies
  // matrices.
  double work = 0;
  for (const ParameterRange& range : optimizer.ranges) {
    work += 4.0 * static_cast<double>(range.end - range.begin);
    if (optimizer.rule == Rule::muon)
      for (const MatrixPlace& m : range.matrices)
        work += 4.0 * optimizer.args.muon.steps * static_cast<double>(m.rows * m.cols) *
                static_cast<double>(std::min(m.rows, m.cols));
  }
  bool done = false;
  {
    const py::gil_scoped_release release;
    run_team(work < serial_below ? 1 : num_threads(), [&](const Team& team) {
      const bool finite = stepper.step(team, true);
      if (team.leads()) done = finite;
    });
  }
  require(done, ErrorKind::divergence, "step: the ", stepper.reason(), " is not finite; nothing was changed");
}

}  // namespace

Optimizer optimizer_of(const std::string& rule_name, const Hyper& hyper, Index updates,
                       const std::vector<PyRange>& ranges) {
  const Rule rule = rule_of(rule_name);
  const UpdateArgs args = update_args(hyper);
  require(updates >= 0, ErrorKind::value, "update: ", updates, " updates done before");
  return {rule, args, updates, parameter_ranges(slot_count(rule, args), ranges)};
}

void bind_updates(py::module_& m) {
  m.def("update", &update, py::arg("rule"), py::arg("hyper"), py::arg("updates"), py::arg("ranges"));
}

}  // namespace gemmule::bindings
