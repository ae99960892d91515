// Convolutions and pooling on NumPy arrays.
#include "bindings/bindings.h"
#include "bindings/matrices.h"
#include "bindings/real_arrays.h"
#include "bindings/windows.h"
#include "core/names.h"
#include "cpu/conv.h"
#include "cpu/dispatch.h"
#include "cpu/pool.h"
#include "plan/crowding.h"

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
             const Pair& stride, const Padding& padding, const Pair& dilation, Index groups,
             bool strict = false)
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
    sizes.strict = strict;
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
  const int members = flops < serial_below || cores_are_crowded() ? 1 : num_threads();
  const Index each = round_up(cpu::conv_workspace(kernels, call), alignment);
  std::byte* workspace = call_workspace(checked_mul(each, members));
  const py::gil_scoped_release release;
  run_team(members,
           [&](const Team& team) { cpu::conv(kernels, team, call, workspace + each * team.rank()); });
}

void conv2d(const py::array& x, const py::array& weight, const std::optional<py::array>& bias, py::array out,
            const Pair& stride, const Padding& padding, const Pair& dilation, Index groups,
            const std::string& activation, double slope, bool strict) {
  const ConvArrays arrays("conv2d", x, weight, out, stride, padding, dilation, groups, strict);
  const Act act = act_of(activation);
  require_array(x, arrays.type, "conv2d: x");
  require_array(weight, arrays.type, "conv2d: weight");
  require_array(out, arrays.type, "conv2d: out", true);
  if (bias) {
    require_array(*bias, arrays.type, "conv2d: bias");
    require(shape_of(*bias) == Shape{weight.shape(0)}, ErrorKind::shape, "conv2d: bias has shape ",
            shape_of(*bias), ", not ", Shape{weight.shape(0)});
  }
  for_type(weight, "conv2d: weight", [&]<class T>(T) {
    const cpu::ConvForward<T> call{
        arrays.sizes, data<T>(x), data<T>(weight),       bias ? data<T>(*bias) : nullptr,    nullptr,
        nullptr,      act,        static_cast<T>(slope), static_cast<T*>(out.mutable_data())};
    run(cpu::kernels<T>(), call, arrays.flops());
  });
}

void conv2d_input_grad(const py::array& dz, const py::array& weight, py::array dx, const Pair& stride,
                       const Padding& padding, const Pair& dilation, Index groups, bool strict) {
  const ConvArrays arrays("conv2d_input_grad", dx, weight, dz, stride, padding, dilation, groups, strict);
  require_array(dz, arrays.type, "conv2d_input_grad: dz");
  require_array(weight, arrays.type, "conv2d_input_grad: weight");
  require_array(dx, arrays.type, "conv2d_input_grad: dx", true);
  for_type(weight, "conv2d_input_grad: weight", [&]<class T>(T) {
    const cpu::ConvData<T> call{arrays.sizes,  data<T>(dz), data<T>(weight),
                                nullptr,       nullptr,     nullptr,
                                Act::identity, T(1),        static_cast<T*>(dx.mutable_data())};
    run(cpu::kernels<T>(), call, arrays.flops());
  });
}

void conv_transpose2d(const py::array& x, const py::array& weight, const std::optional<py::array>& bias,
                      py::array out, const Pair& stride, const Padding& padding, const Pair& dilation,
                      Index groups, const std::string& activation, double slope, bool strict) {
  const ConvArrays arrays("conv_transpose2d", out, weight, x, stride, padding, dilation, groups, strict);
  const Act act = act_of(activation);
  require_array(x, arrays.type, "conv_transpose2d: x");
  require_array(weight, arrays.type, "conv_transpose2d: weight");
  require_array(out, arrays.type, "conv_transpose2d: out", true);
  if (bias) {
    require_array(*bias, arrays.type, "conv_transpose2d: bias");
    require(shape_of(*bias) == Shape{out.shape(3)}, ErrorKind::shape, "conv_transpose2d: bias has shape ",
            shape_of(*bias), ", not ", Shape{out.shape(3)});
  }
  for_type(weight, "conv_transpose2d: weight", [&]<class T>(T) {
    const cpu::ConvData<T> call{
        arrays.sizes, data<T>(x), data<T>(weight),       bias ? data<T>(*bias) : nullptr,    nullptr,
        nullptr,      act,        static_cast<T>(slope), static_cast<T*>(out.mutable_data())};
    run(cpu::kernels<T>(), call, arrays.flops());
  });
}

void conv2d_weight_grad(const py::array& x, const py::array& dz, py::array dweight, const Pair& stride,
                        const Padding& padding, const Pair& dilation, Index groups, bool strict) {
  const ConvArrays arrays("conv2d_weight_grad", x, dweight, dz, stride, padding, dilation, groups, strict);
  require_array(x, arrays.type, "conv2d_weight_grad: x");
  require_array(dz, arrays.type, "conv2d_weight_grad: dz");
  require_array(dweight, arrays.type, "conv2d_weight_grad: dweight", true);
  for_type(dweight, "conv2d_weight_grad: dweight", [&]<class T>(T) {
    const cpu::ConvWeights<T> call{arrays.sizes, data<T>(dz), data<T>(x),
                                   static_cast<T*>(dweight.mutable_data())};
    run(cpu::kernels<T>(), call, arrays.flops());
  });
}

// Shapes of a pooling: images (N, H, W, C) and what their windows give. `images` may be x or dx, `windows` y
// or dy; the errors call them so.
struct Pooling {
  Pooling(const char* op, const Window& window, void (*check)(const char*, const Window&, const Shape&),
          const py::array& images_array, const char* images_name, const py::array& windows_array,
          const char* windows_name)
      : count(0) {
    image = sample_of(images_array, (std::string(op) + ": " + images_name).c_str());
    count = images_array.shape(0);
    check(op, window, image);
    const Shape out = slide(window, image, image[2]), expected{count, out[0], out[1], out[2]};
    require(shape_of(windows_array) == expected, ErrorKind::shape, op, ": ", windows_name, " has shape ",
            shape_of(windows_array), ", not ", expected, " for ", images_name, " ", shape_of(images_array));
    work = static_cast<double>(images_array.size()) +
           static_cast<double>(window.taps()) * static_cast<double>(windows_array.size());
  }
  cpu::PoolShape over(const Window& window, bool count_padding = true) const {
    return cpu::pool_shape(window, image.dims(), count_padding);
  }
  Shape image;
  Index count;
  double work;
};

// `from` and `to` are contiguous and of one type, T.
template <class Body>
void for_contiguous(const char* op, const py::array& from, const char* from_name, const py::array& to,
                    const char* to_name, const Body& body) {
  const std::string read = std::string(op) + ": " + from_name, written = std::string(op) + ": " + to_name;
  for_type(from, read.c_str(), [&]<class T>(T zero) {
    const DType type = dtype_of(from, read.c_str());
    require_array(from, type, read.c_str());
    require_array(to, type, written.c_str(), true);
    body(zero);
  });
}

void max_pool2d(const py::array& x, py::array y, std::optional<py::array> places, const Pair& kernel,
                const Pair& stride, const Padding& padding) {
  constexpr const char* op = "max_pool2d";
  const Window window = window_of(kernel, stride, padding);
  for_contiguous(op, x, "x", y, "y", [&]<class T>(T) {
    const Pooling pooling(op, window, check_max_pool, x, "x", y, "y");
    if (places) {
      require_array(*places, DType::u8, "max_pool2d: places", true);
      require(shape_of(*places) == shape_of(y), ErrorKind::shape, op, ": places has shape ",
              shape_of(*places), ", y ", shape_of(y));
    }
    const T* from = data<T>(x);
    T* to = writable<T>(y);
    std::uint8_t* numbers = places ? writable<std::uint8_t>(*places) : nullptr;
    on_team(pooling.work, [&](const Team& team) {
      cpu::max_pool(team, pooling.over(window), pooling.count, from, to, numbers);
    });
  });
}

void max_pool2d_backward(const py::array& dy, const py::array& places, py::array dx, const Pair& kernel,
                         const Pair& stride, const Padding& padding) {
  constexpr const char* op = "max_pool2d_backward";
  const Window window = window_of(kernel, stride, padding);
  for_contiguous(op, dy, "dy", dx, "dx", [&]<class T>(T) {
    const Pooling pooling(op, window, check_max_pool, dx, "dx", dy, "dy");
    require_array(places, DType::u8, "max_pool2d_backward: places");
    require(shape_of(places) == shape_of(dy), ErrorKind::shape, op, ": places has shape ", shape_of(places),
            ", dy ", shape_of(dy));
    const T* from = data<T>(dy);
    const std::uint8_t* numbers = data<std::uint8_t>(places);
    T* to = writable<T>(dx);
    on_team(pooling.work, [&](const Team& team) {
      cpu::max_pool_grad(team, pooling.over(window), pooling.count, from, numbers, to);
    });
  });
}

void avg_pool2d(const py::array& x, py::array y, const Pair& kernel, const Pair& stride,
                const Padding& padding, bool count_padding) {
  constexpr const char* op = "avg_pool2d";
  const Window window = window_of(kernel, stride, padding);
  for_contiguous(op, x, "x", y, "y", [&]<class T>(T) {
    const Pooling pooling(op, window, check_pool, x, "x", y, "y");
    const T* from = data<T>(x);
    T* to = writable<T>(y);
    on_team(pooling.work, [&](const Team& team) {
      cpu::avg_pool(team, pooling.over(window, count_padding), pooling.count, from, to);
    });
  });
}

void avg_pool2d_backward(const py::array& dy, py::array dx, const Pair& kernel, const Pair& stride,
                         const Padding& padding, bool count_padding) {
  constexpr const char* op = "avg_pool2d_backward";
  const Window window = window_of(kernel, stride, padding);
  for_contiguous(op, dy, "dy", dx, "dx", [&]<class T>(T) {
    const Pooling pooling(op, window, check_pool, dx, "dx", dy, "dy");
    const T* from = data<T>(dy);
    T* to = writable<T>(dx);
    on_team(pooling.work, [&](const Team& team) {
      cpu::avg_pool_grad(team, pooling.over(window, count_padding), pooling.count, from, to);
    });
  });
}

}  // namespace

void bind_images(py::module_& m) {
  m.def("force_conv", &cpu::force_conv, py::arg("path"));
  m.def("forced_conv", &cpu::forced_conv);
  m.def("conv2d", &conv2d, py::arg("x"), py::arg("weight"), py::arg("bias"), py::arg("out"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"), py::arg("activation"),
        py::arg("slope"), py::arg("strict") = false);
  m.def("conv2d_input_grad", &conv2d_input_grad, py::arg("dz"), py::arg("weight"), py::arg("dx"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
        py::arg("strict") = false);
  m.def("conv_transpose2d", &conv_transpose2d, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("out"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
        py::arg("activation"), py::arg("slope"), py::arg("strict") = false);
  m.def("conv2d_weight_grad", &conv2d_weight_grad, py::arg("x"), py::arg("dz"), py::arg("dweight"),
        py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
        py::arg("strict") = false);
  m.def("max_pool2d", &max_pool2d, py::arg("x"), py::arg("y"), py::arg("places"), py::arg("kernel"),
        py::arg("stride"), py::arg("padding"));
  m.def("max_pool2d_backward", &max_pool2d_backward, py::arg("dy"), py::arg("places"), py::arg("dx"),
        py::arg("kernel"), py::arg("stride"), py::arg("padding"));
  m.def("avg_pool2d", &avg_pool2d, py::arg("x"), py::arg("y"), py::arg("kernel"), py::arg("stride"),
        py::arg("padding"), py::arg("count_padding"));
  m.def("avg_pool2d_backward", &avg_pool2d_backward, py::arg("dy"), py::arg("dx"), py::arg("kernel"),
        py::arg("stride"), py::arg("padding"), py::arg("count_padding"));
}

}  // namespace gemmule::bindings
