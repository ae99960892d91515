#include "core/store.h"

#include "bindings/bindings.h"

namespace gemmule::bindings {

void bind_store(py::module_& m) {
  // py::cast(self) is the owner of the views: a live view keeps the buffers where they are.
  const auto flat = [](bool grads) {
    return [grads](const std::shared_ptr<Store>& self) {
      return view(self->type(), Shape{self->size()}, grads ? self->grads() : self->values(), py::cast(self));
    };
  };
  py::class_<Store, std::shared_ptr<Store>>(m, "Store")
      .def(py::init([](const std::string& dtype, const std::vector<Index>& counts) {
             return std::make_shared<Store>(gemmule::dtype_of(dtype), counts);
           }),
           py::arg("dtype"), py::arg("counts"))
      .def_property_readonly("dtype", [](const Store& self) { return name_of(self.type()); })
      .def_property_readonly("size", &Store::size)
      .def_property_readonly("offsets", &Store::offsets)
      .def_property_readonly("values", flat(false))
      .def_property_readonly("grads", flat(true));
}

}  // namespace gemmule::bindings
