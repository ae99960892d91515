// Convolutions on NumPy arrays.
#include "bindings/bindings.h"
#include "bindings/matrices.h"
#include "bindings/windows.h"
#include "core/names.h"
#include "cpu/conv.h"
#include "cpu/dispatch.h"

namespace gemmule::bindings {
namespace {

// (H, W, C) of images (N, H, W, C).
Shape sample_of(const py::array& images, const char* what) {
  const Shape shape = shape_of(images);
  require(shape.rank() == 4, ErrorKind::shape, what, " has shape ", shape, ", not (N, H, W, C)");
  return {shape[1], shape[2], shape[3]};
}

// What a convolution has to do with, checked: x, filters and z are arrays of one type that fit each other.
struct ConvArrays {
  ConvArrays(const char* op, const py::array& x, const py::array& weight, const py::array& z,
             const Pair& stride, const Padding& padding, const Pair& dilation, Index groups)
      : type(dtype_of(x, op)) {
    require(type == DType::f32 || type == DType::f64, ErrorKind::dtype, op, ": x is ", name_of(type),
            ", not float32 or float64");
    const std::string name(op);
    require_type(weight, type, (name + ": weight").c_str());
    require_type(z, type, (name + ": z").c_str());
    const Shape image = sample_of(x, (name + ": x").c_str()), filters = shape_of(weight);
    sizes.window = window_of(kernel_of(filters), stride, padding, dilation);
    check_window(op, sizes.window, image);
    check_filters(op, image[2], filters, groups);
    const Shape expected = slide(sizes.window, image, filters[0]);
    const Shape made{x.shape(0), expected[0], expected[1], expected[2]};
    made.count();  // checks
    require(shape_of(z) == made, ErrorKind::shape, op, ": z has shape ", shape_of(z), ", not ", made);
    sizes.images = x.shape(0);
    sizes.height = image[0];
    sizes.width = image[1];
    sizes.channels = image[2];
    sizes.filters = filters[0];
    sizes.groups = groups;
  }
  double flops() const {
    return 2.0 * static_cast<double>(sizes.images) * static_cast<double>(sizes.out_height()) *
           static_cast<double>(sizes.out_width()) * static_cast<double>(sizes.filters) *
           static_cast<double>(sizes.depth());
  }

  cpu::ConvSizes sizes;
  DType type;
};

template <class Call, class Kernels>
void run(const Kernels& kernels, const Call& call, double flops) {
  const int members = flops < serial_below ? 1 : num_threads();
  const Index each = round_up(cpu::conv_workspace(kernels, call), alignment);
  std::byte* workspace = call_workspace(checked_mul(each, members));
  const py::gil_scoped_release release;
  run_team(members,
           [&](const Team& team) { cpu::conv(kernels, team, call, workspace + each * team.rank()); });
}

// body(T{}) for the type of some arrays.
template <class Body>
void for_real(DType type, const Body& body) {
  if (type == DType::f64)
    body(double{});
  else
    body(float{});
}

template <class T>
const T* data(const py::array& x) {
  return static_cast<const T*>(x.data());
}

void conv2d(const py::array& x, const py::array& weight, const std::optional<py::array>& bias, py::array out,
            const Pair& stride, const Padding& padding, const Pair& dilation, Index groups,
            const std::string& activation, double slope) {
  const ConvArrays arrays("conv2d", x, weight, out, stride, padding, dilation, groups);
  const Act act = act_of(activation);
  require_array(x, arrays.type, "conv2d: x");
  require_array(weight, arrays.type, "conv2d: weight");
  require_array(out, arrays.type, "conv2d: out", true);
  if (bias) {
    require_array(*bias, arrays.type, "conv2d: bias");
    require(shape_of(*bias) == Shape{weight.shape(0)}, ErrorKind::shape, "conv2d: bias has shape ",
            shape_of(*bias), ", not ", Shape{weight.shape(0)});
  }
  for_real(arrays.type, [&]<class T>(T) {
    const cpu::ConvForward<T> call{arrays.sizes,
                                   data<T>(x),
                                   data<T>(weight),
                                   bias ? data<T>(*bias) : nullptr,
                                   act,
                                   static_cast<T>(slope),
                                   static_cast<T*>(out.mutable_data())};
    run(cpu::kernels<T>(), call, arrays.flops());
  });
}

void conv2d_input_grad(const py::array& dz, const py::array& weight, py::array dx, const Pair& stride,
                       const Padding& padding, const Pair& dilation, Index groups) {
  const ConvArrays arrays("conv2d_input_grad", dx, weight, dz, stride, padding, dilation, groups);
  require_array(dz, arrays.type, "conv2d_input_grad: dz");
  require_array(weight, arrays.type, "conv2d_input_grad: weight");
  require_array(dx, arrays.type, "conv2d_input_grad: dx", true);
  for_real(arrays.type, [&]<class T>(T) {
    const cpu::ConvData<T> call{arrays.sizes,
                                data<T>(dz),
                                data<T>(weight),
                                nullptr,
                                Act::identity,
                                T(1),
                                static_cast<T*>(dx.mutable_data())};
    run(cpu::kernels<T>(), call, arrays.flops());
  });
}

void conv2d_weight_grad(const py::array& x, const py::array& dz, py::array dweight, const Pair& stride,
                        const Padding& padding, const Pair& dilation, Index groups) {
  const ConvArrays arrays("conv2d_weight_grad", x, dweight, dz, stride, padding, dilation, groups);
  require_array(x, arrays.type, "conv2d_weight_grad: x");
  require_array(dz, arrays.type, "conv2d_weight_grad: dz");
  require_array(dweight, arrays.type, "conv2d_weight_grad: dweight", true);
  for_real(arrays.type, [&]<class T>(T) {
    const cpu::ConvWeights<T> call{arrays.sizes, data<T>(dz), data<T>(x),
                                   static_cast<T*>(dweight.mutable_data())};
    run(cpu::kernels<T>(), call, arrays.flops());
  });
}

}  // namespace

void bind_images(py::module_& m) {
  m.def("conv2d", &conv2d, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("out"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("activation"),
        py::arg("slope"));
  m.def("conv2d_input_grad", &conv2d_input_grad, py::arg("dz"), py::arg("weight"), py::arg("dx"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"));
  m.def("conv2d_weight_grad", &conv2d_weight_grad, py::arg("x"), py::arg("dz"), py::arg("dweight"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"));
}

}  // namespace gemmule::bindings
