// Activations, rows and optimizer steps on one thread, over data in L2.
#include <span>

#include "bench.h"
#include "core/names.h"
#include "cpu/dispatch.h"

namespace gemmule::bench {
namespace {

constexpr Index rows = 64, cols = 256, count = rows * cols;  // a batch of hidden units: 64 KB of f32

template <class T, class Body>
void add(const std::string& name, Index arrays, Body body) {
  benchmark::RegisterBenchmark((name + "/" + type_name<T>()).c_str(), [=](benchmark::State& state) {
    const Data<T> x(count), y(count), z(count), w(count);
    for (T& value : std::span(w.get(), count)) value *= value;  // Adam's second slot holds squares
    const auto& element = cpu::kernels<T>().element;
    count_elements(state, count, arrays * count * Index(sizeof(T)),
                   [&] { body(element, x.get(), y.get(), z.get(), w.get()); });
  });
}

template <class T>
void register_activations() {
  for (int i = 0; i < act_count; ++i) {
    const auto act = static_cast<Act>(i);
    const std::string name = name_of(act);
    add<T>("activation/" + name, 2,
           [=](const auto& k, T* z, T* h, T*, T*) { k.activation(act, T(1), count, z, h); });
    add<T>("activation_grad/" + name, 3,
           [=](const auto& k, T* dh, T* h, T* dz, T*) { k.activation_grad(act, T(1), count, dh, h, dz); });
  }
}

template <class T>
void register_rows() {
  add<T>("add", 3, [](const auto& k, T* a, T* b, T* dst, T*) { k.add(count, a, b, dst); });
  add<T>("softmax", 2, [](const auto& k, T* z, T* h, T*, T*) { k.softmax(rows, cols, z, h); });
  add<T>("softmax_grad", 3,
         [](const auto& k, T* dh, T* h, T* dz, T*) { k.softmax_grad(rows, cols, dh, h, dz); });
  add<T>("sum_rows", 1,
         [](const auto& k, T* x, T* dst, T*, T*) { k.sum_rows(rows, cols, x, cols, dst, false); });
  cpu::DropoutArgs dropout;
  dropout.rate = 0.5;
  add<T>("dropout", 2,
         [=](const auto& k, T* x, T* dst, T*, T*) { k.dropout(dropout, 0, rows, cols, x, dst); });
}

// Read and written: the weights and, for Adam, two slots; the gradient is read. The rates are so small that
// the weights stay where they are through millions of steps.
template <class T>
void register_updates() {
  UpdateArgs args;
  args.lr = 1e-9;
  add<T>("update/sgd", 3, [=](const auto& k, T* w, T* g, T*, T*) {
    benchmark::DoNotOptimize(k.update(Rule::sgd, args, count, w, g, nullptr));
  });
  args.beta1 = 0.9, args.beta2 = 0.999, args.eps = 1e-8;
  add<T>("update/adam", 7, [=](const auto& k, T* w, T* g, T* s0, T* s1) {
    T* const slots[] = {s0, s1};
    benchmark::DoNotOptimize(k.update(Rule::adam, args, count, w, g, slots));
  });
}

template <class T>
void register_type() {
  register_activations<T>();
  register_rows<T>();
  register_updates<T>();
}

}  // namespace

void register_elementwise() {
  register_type<float>();
  register_type<double>();
}

}  // namespace gemmule::bench
