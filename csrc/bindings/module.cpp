#include "bindings/bindings.h"

PYBIND11_MODULE(_core, m) {
  using namespace gemmule::bindings;
  m.doc() = "The compiled part of gemmule: kernels, graph, plan.";
  bind_errors(m);
  bind_machine(m);
  bind_store(m);
  bind_graph(m);
  bind_programs(m);
  bind_augment(m);
  bind_training(m);
  bind_updates(m);
  bind_gemm(m);
  bind_stacks(m);
  bind_packed(m);
  bind_ops(m);
  bind_images(m);
  bind_norms(m);
}
