// What changes the shape of images, or whole channels of them: on graphs and on NumPy arrays.
#include "cpu/layout.h"

#include "bindings/bindings.h"
#include "bindings/matrices.h"
#include "bindings/real_arrays.h"
#include "bindings/windows.h"
#include "core/names.h"
#include "cpu/resize.h"

namespace gemmule::bindings {
namespace {

using Scale = std::array<double, 2>;  // down, across; 0: by the sizes

Window frame_of(const Padding& padding) { return window_of({1, 1}, {1, 1}, padding); }

ValueId apply(PyGraph& self, OpKind op, std::vector<ValueId> in, Attrs attrs, const std::string& name) {
  return self.graph.apply(op, std::move(in), std::move(attrs), name);
}

ValueId transposed_conv2d(PyGraph& self, ValueId x, ValueId weight, std::optional<ValueId> bias,
                          const std::vector<Index>& dims, const Pair& stride, const Padding& padding,
                          const Pair& dilation, Index groups, const std::string& name, bool strict) {
  std::vector<ValueId> in = {x, weight};
  if (bias) in.push_back(*bias);
  Attrs attrs;
  attrs.dims = dims;
  attrs.window = window_of(kernel_of(self.graph.info(weight).dims), stride, padding, dilation);
  attrs.groups = groups;
  attrs.strict = strict;
  attrs.transposed = true;
  return apply(self, OpKind::conv2d_data, std::move(in), std::move(attrs), name);
}

ValueId zero_pad2d(PyGraph& self, ValueId x, const Padding& padding, const std::string& name) {
  Attrs attrs;
  attrs.window = frame_of(padding);
  return apply(self, OpKind::pad, {x}, std::move(attrs), name);
}

ValueId resize2d(PyGraph& self, ValueId x, const std::vector<Index>& dims, const std::string& kind,
                 const Scale& scale, const std::string& name) {
  Attrs attrs;
  attrs.dims = dims;
  attrs.resize = resize_of(kind);
  attrs.scale = scale;
  return apply(self, OpKind::resize, {x}, std::move(attrs), name);
}

ValueId dropout2d(PyGraph& self, ValueId x, double rate, std::uint32_t layer, const std::string& name) {
  require(rate >= 0 && rate < 1, ErrorKind::value, "dropout2d: rate is ", rate, ", not in [0, 1)");
  Attrs attrs;
  attrs.rate = rate;
  attrs.layer = layer;
  return apply(self, OpKind::channel_dropout, {x}, std::move(attrs), name);
}

// An op reads no more than six values: those of a longer list are put side by side in turn.
ValueId concat(PyGraph& self, std::vector<ValueId> values, const std::string& name) {
  constexpr std::size_t at_once = 6;
  while (values.size() > at_once) {
    const auto end = values.begin() + at_once;
    const ValueId joined = apply(self, OpKind::concat, {values.begin(), end}, {}, name);
    values.erase(values.begin() + 1, end);
    values.front() = joined;
  }
  return apply(self, OpKind::concat, std::move(values), {}, name);
}

// (N, H, W, C)
Shape images_of(const py::array& array, const std::string& what) {
  const Shape shape = shape_of(array);
  require(shape.rank() == 4, ErrorKind::shape, what, " has shape ", shape, ", not (N, H, W, C)");
  return shape;
}

// Arrays that a function reads and writes: contiguous images of one type, and their numbers the same.
struct Images {
  Images(const char* op, const py::array& from, const char* from_name, const py::array& to,
         const char* to_name)
      : read(images_of(from, std::string(op) + ": " + from_name)),
        written(images_of(to, std::string(op) + ": " + to_name)) {
    const DType type = dtype_of(from, op);
    require_array(from, type, (std::string(op) + ": " + from_name).c_str());
    require_array(to, type, (std::string(op) + ": " + to_name).c_str(), true);
    require(read[0] == written[0] && read[3] == written[3], ErrorKind::shape, op, ": ", from_name, " ", read,
            " and ", to_name, " ", written, " do not fit");
    work = static_cast<double>(read.count() + written.count());
  }
  Shape read, written;
  double work;
};

Shape sample_of(const Shape& images) { return {images[1], images[2], images[3]}; }

// `inner` are the images without their frame.
cpu::Frame checked_frame(const char* op, const Window& around, const Shape& inner, const Shape& padded) {
  check_window(op, around, sample_of(inner));
  require(sample_of(padded) == slide(around, sample_of(inner), inner[3]), ErrorKind::shape, op, ": images ",
          inner, " with their frame are not ", padded);
  return {inner[0], inner[1], inner[2], inner[3], around};
}

void pad_arrays(const py::array& x, py::array y, const Padding& padding) {
  const Images images("zero_pad2d", x, "x", y, "y");
  const cpu::Frame frame = checked_frame("zero_pad2d", frame_of(padding), images.read, images.written);
  for_type(x, "zero_pad2d: x", [&]<class T>(T) {
    const T* from = data<T>(x);
    T* to = writable<T>(y);
    on_team(images.work, [&](const Team& team) { cpu::pad(team, frame, from, to); });
  });
}

void crop_arrays(const py::array& dy, py::array dx, const Padding& padding) {
  const Images images("zero_pad2d_backward", dy, "dy", dx, "dx");
  const cpu::Frame frame =
      checked_frame("zero_pad2d_backward", frame_of(padding), images.written, images.read);
  for_type(dy, "zero_pad2d_backward: dy", [&]<class T>(T) {
    const T* from = data<T>(dy);
    T* to = writable<T>(dx);
    on_team(images.work, [&](const Team& team) { cpu::crop(team, frame, from, to); });
  });
}

// `inner` are the images before, `outer` those of the other size.
cpu::Resizing checked_resizing(const char* op, const std::string& kind, const Scale& scale,
                               const Shape& inner, const Shape& outer) {
  const Resize how = resize_of(kind);
  check_resize(op, how, sample_of(inner), sample_of(outer), scale[0], scale[1]);
  return {how, inner[0], inner[3], {inner[1], outer[1], scale[0]}, {inner[2], outer[2], scale[1]}};
}

// body(team, workspace), with a workspace for each member.
template <class T, class Body>
void with_workspace(double work, const cpu::Resizing& shape, const Body& body) {
  const int members = work < serial_below ? 1 : num_threads();
  const Index each = round_up(cpu::resize_workspace<T>(shape), alignment);
  std::byte* const workspace = call_workspace(checked_mul(each, members));
  const py::gil_scoped_release release;
  run_team(members, [&](const Team& team) { body(team, workspace + each * team.rank()); });
}

void resize_arrays(const py::array& x, py::array y, const std::string& kind, const Scale& scale) {
  const Images images("resize2d", x, "x", y, "y");
  const cpu::Resizing shape = checked_resizing("resize2d", kind, scale, images.read, images.written);
  for_type(x, "resize2d: x", [&]<class T>(T) {
    const T* from = data<T>(x);
    T* to = writable<T>(y);
    with_workspace<T>(images.work, shape, [&](const Team& team, void* workspace) {
      cpu::resize(team, shape, from, to, workspace);
    });
  });
}

void resize_arrays_backward(const py::array& dy, py::array dx, const std::string& kind, const Scale& scale) {
  const Images images("resize2d_backward", dy, "dy", dx, "dx");
  const cpu::Resizing shape = checked_resizing("resize2d_backward", kind, scale, images.written, images.read);
  for_type(dy, "resize2d_backward: dy", [&]<class T>(T) {
    const T* from = data<T>(dy);
    T* to = writable<T>(dx);
    with_workspace<T>(images.work, shape, [&](const Team& team, void* workspace) {
      cpu::resize_grad(team, shape, from, to, workspace);
    });
  });
}

void dropout_arrays(const py::array& x, py::array out, double rate, std::uint64_t key, std::uint64_t step,
                    std::uint32_t layer) {
  require(rate >= 0 && rate < 1, ErrorKind::value, "dropout2d: rate is ", rate, ", not in [0, 1)");
  const Images images("dropout2d", x, "x", out, "out");
  require(images.read == images.written, ErrorKind::shape, "dropout2d: out has shape ", images.written,
          ", not ", images.read);
  const cpu::DropoutArgs args{key, step, layer, rate};
  const Index channels = images.read[3], pixels = images.read[1] * images.read[2];
  for_type(x, "dropout2d: x", [&]<class T>(T) {
    const T* from = data<T>(x);
    T* to = writable<T>(out);
    const int members = images.work < serial_below ? 1 : num_threads();
    const Index each = round_up(channels * static_cast<Index>(sizeof(T)), alignment);
    std::byte* const workspace = call_workspace(checked_mul(each, members));
    const py::gil_scoped_release release;
    run_team(members, [&](const Team& team) {
      cpu::channel_dropout(team, args, 0, images.read[0], pixels, channels, from, to,
                           reinterpret_cast<T*>(workspace + each * team.rank()));
    });
  });
}

}  // namespace

void bind_layout(py::class_<PyGraph>& graph, py::module_& m) {
  graph
      .def("conv_transpose2d", &transposed_conv2d, py::arg("x"), py::arg("weight"), py::arg("bias"),
           py::arg("dims"), py::arg("stride"), py::arg("padding"), py::arg("dilation"), py::arg("groups"),
           py::arg("name"), py::arg("strict") = false)
      .def("zero_pad2d", &zero_pad2d, py::arg("x"), py::arg("padding"), py::arg("name"))
      .def("resize2d", &resize2d, py::arg("x"), py::arg("dims"), py::arg("kind"), py::arg("scale"),
           py::arg("name"))
      .def("dropout2d", &dropout2d, py::arg("x"), py::arg("rate"), py::arg("layer"), py::arg("name"))
      .def("concat", &concat, py::arg("values"), py::arg("name"));
  m.def("zero_pad2d", &pad_arrays, py::arg("x"), py::arg("y"), py::arg("padding"));
  m.def("zero_pad2d_backward", &crop_arrays, py::arg("dy"), py::arg("dx"), py::arg("padding"));
  m.def("resize2d", &resize_arrays, py::arg("x"), py::arg("y"), py::arg("kind"), py::arg("scale"));
  m.def("resize2d_backward", &resize_arrays_backward, py::arg("dy"), py::arg("dx"), py::arg("kind"),
        py::arg("scale"));
  m.def("dropout2d", &dropout_arrays, py::arg("x"), py::arg("out"), py::arg("rate"), py::arg("key"),
        py::arg("step"), py::arg("layer"));
}

}  // namespace gemmule::bindings
