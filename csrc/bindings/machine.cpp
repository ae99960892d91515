// What runs where: ISA, threads, build, and the FMA ceiling that benchmarks measure against.
#include "bindings/bindings.h"
#include "core/arena.h"
#include "core/threads.h"
#include "cpu/ceiling.h"
#include "cpu/dispatch.h"
#include "plan/program.h"

#ifndef GEMMULE_VERSION
#error "GEMMULE_VERSION comes from the build"
#endif

namespace gemmule::bindings {
namespace {

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

}  // namespace

void bind_machine(py::module_& m) {
  m.def("known_isas", &cpu::known_isas);
  m.def("supported_isas", &cpu::supported_isas);
  m.def("active_isa", [] { return cpu::active().name; });
  m.def("force_isa", &cpu::force_isa, py::arg("name"));
  m.def("num_threads", &num_threads);
  m.def(
      "set_num_threads",
      [](std::optional<int> count) {
        require(!count || (*count >= 1 && *count <= max_threads), ErrorKind::value,
                "set_num_threads: count is ", count.value_or(0), ", not 1 to ", max_threads);
        set_num_threads(count.value_or(0));
      },
      py::arg("count"));
  m.def("build_info", [] {
    py::dict info;
    info["version"] = GEMMULE_VERSION;
    info["compiler"] = compiler();
    info["openmp"] = std::to_string(_OPENMP);
#if defined(NDEBUG)
    info["build_type"] = "release";
#else
    info["build_type"] = "debug";
#endif
    return info;
  });
  m.def(
      "fma_ceiling",
      [](const std::string& dtype, int threads, double seconds) {
        require(threads >= 1 && threads <= max_threads, ErrorKind::value, "fma_ceiling: threads is ",
                threads);
        const bool wide = gemmule::dtype_of(dtype) == DType::f64;
        const py::gil_scoped_release release;
        return wide ? cpu::fma_ceiling<double>(threads, seconds) : cpu::fma_ceiling<float>(threads, seconds);
      },
      py::arg("dtype"), py::arg("threads"), py::arg("seconds"));
  m.def("set_verbose", &set_verbose, py::arg("on"));
  m.def("fail_allocation_after", &fail_allocation_after, py::arg("count"));
  cpu::active();  // GEMMULE_MAX_ISA is read at import, where its error belongs
}

}  // namespace gemmule::bindings
