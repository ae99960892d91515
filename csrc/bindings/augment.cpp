// Images changed at random: what a training loop is given, and what it does, on NumPy arrays.
#include "plan/augment.h"

#include "bindings/real_arrays.h"

namespace gemmule::bindings {
namespace {

void apply(const Augmenter& self, const py::array& x, py::array out, std::uint64_t key, std::uint64_t step) {
  const Index images = require_batch(x, self.type(), self.image(), "augment: x");
  require(require_batch(out, self.type(), self.image(), "augment: out", true) == images, ErrorKind::shape,
          "augment: out ", shape_of(out), " is not like x ", shape_of(x));
  const std::byte* src = bytes(x);
  std::byte* dst = writable_bytes(out);
  on_team(static_cast<double>(images) * static_cast<double>(self.bytes()), [&](const Team& team) {
    const Span part = team.share(images);
    for (Index i = part.begin; i < part.end; ++i)
      self.apply(key, step, static_cast<std::uint64_t>(i), src + i * self.bytes(), dst + i * self.bytes());
  });
}

}  // namespace

void bind_augment(py::module_& m) {
  py::class_<Augmenter>(m, "Augmenter")
      .def(
          py::init([](const std::vector<Index>& image, const std::string& dtype, double flip,
                      double vertical_flip, Index down, Index across, const std::string& fill, double value) {
            const Augmentation how{flip, vertical_flip, down, across, fill_of(fill), value};
            const DType type = dtype == name_of(DType::u8) ? DType::u8 : gemmule::dtype_of(dtype);
            return std::make_unique<Augmenter>(how, type, Shape(image));
          }),
          py::arg("image"), py::arg("dtype"), py::arg("flip"), py::arg("vertical_flip"), py::arg("down"),
          py::arg("across"), py::arg("fill"), py::arg("value"))
      .def("apply", &apply, py::arg("x"), py::arg("out"), py::arg("key"), py::arg("step"));
}

}  // namespace gemmule::bindings
