// Normalizations on NumPy arrays. Who calls brings arrays to these shapes: (pixels, channels) over a batch,
// (samples, pixels, channels) within a sample.
#include "bindings/bindings.h"
#include "bindings/matrices.h"
#include "bindings/real_arrays.h"
#include "core/arena.h"
#include "cpu/group_norm.h"
#include "cpu/norm.h"
#include "plan/crowding.h"

namespace gemmule::bindings {
namespace {

using OptionalArray = std::optional<py::array>;

std::string part(const char* op, const char* name) { return std::string(op) + ": " + name; }

void require_shape(const py::array& array, DType type, const Shape& shape, const std::string& what,
                   bool is_output = false) {
  require_array(array, type, what.c_str(), is_output);
  require(shape_of(array) == shape, ErrorKind::shape, what, " has shape ", shape_of(array), ", not ", shape);
}

template <class T>
const T* optional_data(const OptionalArray& array) {
  return array ? data<T>(*array) : nullptr;
}

// Runs a call whose members need `bytes` each.
template <class Call>
void run(const Call& call, Index bytes, double work) {
  const int members = work < serial_below || cores_are_crowded() ? 1 : num_threads();
  const Index each = round_up(bytes, alignment);
  std::byte* workspace = call_workspace(checked_mul(each, members));
  const py::gil_scoped_release release;
  run_team(members, [&](const Team& team) { cpu::norm(team, call, workspace + each * team.rank()); });
}

// -- over a batch
// --------------------------------------------------------------------------------------------

cpu::NormSizes batch_sizes(const char* op, const py::array& x) {
  require(x.ndim() == 2 && x.shape(0) > 0 && x.shape(1) > 0, ErrorKind::shape, op, ": x has shape ",
          shape_of(x), ", not (pixels, channels)");
  return {x.shape(0), x.shape(1)};
}

double work_of(const py::array& x) { return 4.0 * static_cast<double>(x.size()); }

void batch_stats(const py::array& x, double eps, py::array stats) {
  constexpr const char* op = "batch_stats";
  for_type(x, "batch_stats: x", [&]<class T>(T) {
    const DType type = dtype_of(x, op);
    const cpu::NormSizes sizes = batch_sizes(op, x);
    require_array(x, type, "batch_stats: x");
    require_shape(stats, type, {3, sizes.channels}, part(op, "stats"), true);
    const cpu::BatchStats<T> call{sizes, data<T>(x), eps, writable<T>(stats)};
    run(call, cpu::norm_workspace<T>(sizes), work_of(x));
  });
}

void batch_norm(const py::array& x, const py::array& stats, const OptionalArray& weight,
                const OptionalArray& bias, py::array y) {
  constexpr const char* op = "batch_norm";
  for_type(x, "batch_norm: x", [&]<class T>(T) {
    const DType type = dtype_of(x, op);
    const cpu::NormSizes sizes = batch_sizes(op, x);
    require_array(x, type, "batch_norm: x");
    require_shape(stats, type, {3, sizes.channels}, part(op, "stats"));
    if (weight) require_shape(*weight, type, {sizes.channels}, part(op, "weight"));
    if (bias) require_shape(*bias, type, {sizes.channels}, part(op, "bias"));
    require_like(y, x, "batch_norm: y", true);
    cpu::BatchNorm<T> call{sizes, data<T>(x), data<T>(stats), optional_data<T>(weight),
                           optional_data<T>(bias)};
    call.y = writable<T>(y);
    run(call, cpu::norm_workspace<T>(sizes), work_of(x));
  });
}

void batch_norm_sums(const py::array& dy, const py::array& x, const py::array& stats, py::array sums) {
  constexpr const char* op = "batch_norm_sums";
  for_type(x, "batch_norm_sums: x", [&]<class T>(T) {
    const DType type = dtype_of(x, op);
    const cpu::NormSizes sizes = batch_sizes(op, x);
    require_array(x, type, "batch_norm_sums: x");
    require_like(dy, x, "batch_norm_sums: dy");
    require_shape(stats, type, {3, sizes.channels}, part(op, "stats"));
    require_shape(sums, type, {2, sizes.channels}, part(op, "sums"), true);
    cpu::BatchNormSums<T> call{sizes, data<T>(dy), data<T>(x), data<T>(stats)};
    call.sums = writable<T>(sums);
    run(call, cpu::norm_workspace<T>(sizes), work_of(x));
  });
}

void batch_norm_grad(const py::array& dy, const py::array& x, const py::array& stats,
                     const OptionalArray& weight, const OptionalArray& sums, py::array dx) {
  constexpr const char* op = "batch_norm_grad";
  for_type(x, "batch_norm_grad: x", [&]<class T>(T) {
    const DType type = dtype_of(x, op);
    const cpu::NormSizes sizes = batch_sizes(op, x);
    require_array(x, type, "batch_norm_grad: x");
    require_like(dy, x, "batch_norm_grad: dy");
    require_shape(stats, type, {3, sizes.channels}, part(op, "stats"));
    if (weight) require_shape(*weight, type, {sizes.channels}, part(op, "weight"));
    if (sums) require_shape(*sums, type, {2, sizes.channels}, part(op, "sums"));
    require_like(dx, x, "batch_norm_grad: dx", true);
    cpu::BatchNormGrad<T> call{
        sizes, data<T>(dy), data<T>(x), data<T>(stats), optional_data<T>(weight), optional_data<T>(sums)};
    call.dx = writable<T>(dx);
    run(call, cpu::norm_workspace<T>(sizes), work_of(x));
  });
}

// -- within a sample
// -----------------------------------------------------------------------------------------

cpu::GroupNormSizes sample_sizes(const char* op, const py::array& x, Index groups) {
  require(x.ndim() == 3 && x.shape(1) > 0 && x.shape(2) > 0, ErrorKind::shape, op, ": x has shape ",
          shape_of(x), ", not (samples, pixels, channels)");
  require(groups > 0 && x.shape(2) % groups == 0, ErrorKind::value, op, ": groups is ", groups,
          ", which does not divide ", x.shape(2), " channels");
  return {x.shape(0), x.shape(1), groups, x.shape(2) / groups};
}

void group_norm(const py::array& x, Index groups, const OptionalArray& weight, const OptionalArray& bias,
                double eps, py::array y, OptionalArray stats) {
  constexpr const char* op = "group_norm";
  for_type(x, "group_norm: x", [&]<class T>(T) {
    const DType type = dtype_of(x, op);
    const cpu::GroupNormSizes sizes = sample_sizes(op, x, groups);
    require_array(x, type, "group_norm: x");
    require(weight.has_value() == bias.has_value(), ErrorKind::value, op, ": weight and bias go together");
    if (weight) {
      require_shape(*weight, type, {sizes.width()}, part(op, "weight"));
      require_shape(*bias, type, {sizes.width()}, part(op, "bias"));
    }
    require_like(y, x, "group_norm: y", true);
    if (stats) require_shape(*stats, type, {sizes.samples, groups, 2}, part(op, "stats"), true);
    cpu::GroupNorm<T> call{sizes, data<T>(x), optional_data<T>(weight), optional_data<T>(bias), eps};
    call.y = writable<T>(y);
    call.stats = stats ? writable<T>(*stats) : nullptr;
    run(call, cpu::group_norm_workspace<T>(sizes, false), work_of(x));
  });
}

void group_norm_sums(const py::array& dy, const py::array& x, Index groups, const py::array& stats,
                     py::array sums) {
  constexpr const char* op = "group_norm_sums";
  for_type(x, "group_norm_sums: x", [&]<class T>(T) {
    const DType type = dtype_of(x, op);
    const cpu::GroupNormSizes sizes = sample_sizes(op, x, groups);
    require_array(x, type, "group_norm_sums: x");
    require_like(dy, x, "group_norm_sums: dy");
    require_shape(stats, type, {sizes.samples, groups, 2}, part(op, "stats"));
    require_shape(sums, type, {2, sizes.width()}, part(op, "sums"), true);
    cpu::GroupNormSums<T> call{sizes, data<T>(dy), data<T>(x), data<T>(stats)};
    call.sums = writable<T>(sums);
    run(call, cpu::group_norm_workspace<T>(sizes, true), work_of(x));
  });
}

void group_norm_grad(const py::array& dy, const py::array& x, Index groups, const py::array& stats,
                     const OptionalArray& weight, py::array dx) {
  constexpr const char* op = "group_norm_grad";
  for_type(x, "group_norm_grad: x", [&]<class T>(T) {
    const DType type = dtype_of(x, op);
    const cpu::GroupNormSizes sizes = sample_sizes(op, x, groups);
    require_array(x, type, "group_norm_grad: x");
    require_like(dy, x, "group_norm_grad: dy");
    require_shape(stats, type, {sizes.samples, groups, 2}, part(op, "stats"));
    if (weight) require_shape(*weight, type, {sizes.width()}, part(op, "weight"));
    require_like(dx, x, "group_norm_grad: dx", true);
    cpu::GroupNormGrad<T> call{sizes, data<T>(dy), data<T>(x), data<T>(stats), optional_data<T>(weight)};
    call.dx = writable<T>(dx);
    run(call, cpu::group_norm_workspace<T>(sizes, false), work_of(x));
  });
}

}  // namespace

void bind_norms(py::module_& m) {
  m.def("batch_stats", &batch_stats, py::arg("x"), py::arg("eps"), py::arg("stats"));
  m.def("batch_norm", &batch_norm, py::arg("x"), py::arg("stats"), py::arg("weight"), py::arg("bias"),
        py::arg("y"));
  m.def("batch_norm_sums", &batch_norm_sums, py::arg("dy"), py::arg("x"), py::arg("stats"), py::arg("sums"));
  m.def("batch_norm_grad", &batch_norm_grad, py::arg("dy"), py::arg("x"), py::arg("stats"), py::arg("weight"),
        py::arg("sums"), py::arg("dx"));
  m.def("group_norm", &group_norm, py::arg("x"), py::arg("groups"), py::arg("weight"), py::arg("bias"),
        py::arg("eps"), py::arg("y"), py::arg("stats"));
  m.def("group_norm_sums", &group_norm_sums, py::arg("dy"), py::arg("x"), py::arg("groups"), py::arg("stats"),
        py::arg("sums"));
  m.def("group_norm_grad", &group_norm_grad, py::arg("dy"), py::arg("x"), py::arg("groups"), py::arg("stats"),
        py::arg("weight"), py::arg("dx"));
}

}  // namespace gemmule::bindings
