// gm.ops.PackedMatrix: the right operand of many products, packed once.
#include <mutex>
#include <shared_mutex>

#include "bindings/matrices.h"
#include "core/arena.h"
#include "core/names.h"
#include "cpu/panels.h"

namespace gemmule::bindings {
namespace {

// Panels are as wide as the tile of an ISA: those of another are made anew where they are needed. Products
// hold the lock shared, what writes the panels alone; nobody waits for it with the GIL in hand.
class PackedMatrix {
 public:
  PackedMatrix(py::array b, bool trans) : type_(real_type(b)) {
    require(b.ndim() == 2, ErrorKind::shape, "PackedMatrix: b ", shape_of(b), " is not a matrix");
    rows_ = b.shape(trans);
    cols_ = b.shape(!trans);
    refresh(std::move(b), trans);
  }

  void refresh(py::array b, bool trans) {
    require_type(b, type_, "PackedMatrix: b");
    require(b.ndim() == 2 && b.shape(trans) == rows_ && b.shape(!trans) == cols_, ErrorKind::shape,
            "PackedMatrix: b", trans ? " transposed" : "", " has shape ", shape_of(b), ", packed is ",
            Shape{rows_, cols_});
    if (!in_elements(b)) b = plain_copy(b);
    type_ == DType::f32 ? pack(matrix<float>(b, trans)) : pack(matrix<double>(b, trans));
  }

  py::array unpack() {
    py::array matrix(numpy_dtype(type_), Shape{rows_, cols_}.dims());
    std::byte* to = writable_bytes(matrix);
    const py::gil_scoped_release release;
    const std::shared_lock lock(mutex_);
    type_ == DType::f32 ? unpack_to(reinterpret_cast<float*>(to)) : unpack_to(reinterpret_cast<double*>(to));
    return matrix;
  }

  py::array gemm(py::array a, const std::optional<py::array>& wanted, double alpha, double beta, bool trans_a,
                 std::optional<py::array> bias, const std::string& activation, double slope) {
    const Epilogue epilogue{alpha, beta, act_of(activation), slope};
    require_type(a, type_, "gemm: a");
    if (a.ndim() != 2) fail(ErrorKind::shape, "gemm: a ", shape_of(a), " is not a matrix");
    const Index m = a.shape(trans_a), k = a.shape(!trans_a);
    if (k != rows_)
      fail(ErrorKind::shape, "gemm: inner dimensions differ: op(a) (", m, ", ", k, "), packed b (", rows_,
           ", ", cols_, ")");
    require_result(type_, m, cols_, bias, wanted, beta);
    if (overflows(type_, m, cols_))
      fail(ErrorKind::shape, "gemm: a ", shape_of(a), " and packed b ", Shape{rows_, cols_},
           ": the size of (", m, ", ", cols_, ") overflows");
    if (!in_elements(a)) a = plain_copy(a);
    make_adjacent(bias);
    ResultArray out(type_, m, cols_, wanted, {&a, bias ? &*bias : nullptr});
    if (m > 0 && cols_ > 0)
      type_ == DType::f32 ? run<float>(a, bias, out, trans_a, epilogue)
                          : run<double>(a, bias, out, trans_a, epilogue);
    return out.finish();
  }

  py::tuple shape() const { return py::make_tuple(rows_, cols_); }
  const char* dtype() const { return name_of(type_); }
  Index bytes() {
    const py::gil_scoped_release release;
    const std::shared_lock lock(mutex_);
    return panels_.bytes();
  }

 private:
  static DType real_type(const py::array& b) {
    const DType type = dtype_of(b, "PackedMatrix: b");
    require(type != DType::i64, ErrorKind::dtype, "PackedMatrix: b is int64, not float32 or float64");
    return type;
  }

  template <class T>
  T* panels() {
    return reinterpret_cast<T*>(panels_.data());
  }

  // A team where there is enough to move.
  template <class Body>
  void in_team(const Body& body) const {
    const double elements = static_cast<double>(rows_) * static_cast<double>(cols_);
    run_team(4.0 * elements < serial_below ? 1 : num_threads(), body);
  }

  template <class T>
  void pack(const MatrixView<const T>& b) {
    const py::gil_scoped_release release;
    const std::unique_lock lock(mutex_);
    write(cpu::active(), b);
  }

  template <class T>
  void write(const cpu::IsaTable& isa, const MatrixView<const T>& b) {
    const cpu::GemmKernels<T>& k = kernels_of<T>(isa).gemm;
    if (isa_ != &isa)
      panels_ = Arena(checked_mul(cpu::panel_elements(k, rows_, cols_), static_cast<Index>(sizeof(T))));
    isa_ = &isa;
    in_team([&](const Team& team) { cpu::to_panels(k, team, b, panels<T>()); });
  }

  template <class T>
  void unpack_to(T* to) {
    const cpu::GemmKernels<T>& k = kernels_of<T>(*isa_).gemm;
    in_team([&](const Team& team) { cpu::from_panels(k, team, rows_, cols_, panels<T>(), to); });
  }

  template <class T>
  void repack(const cpu::IsaTable& isa) {
    const std::unique_lock lock(mutex_);
    if (isa_ == &isa) return;
    const Arena copy(checked_mul(checked_mul(rows_, cols_), static_cast<Index>(sizeof(T))));
    T* matrix = reinterpret_cast<T*>(copy.data());
    unpack_to(matrix);
    write(isa, MatrixView<const T>{matrix, rows_, cols_, cols_, 1});
  }

  template <class T>
  void run(const py::array& a, const std::optional<py::array>& bias, ResultArray& out, bool trans_a,
           const Epilogue& epilogue) {
    cpu::Gemm<T> call;
    call.a = matrix<T>(a, trans_a);
    call.b.rows = rows_;
    call.b.cols = cols_;
    call.b_form = cpu::Form::panels;
    out.fill(call);
    epilogue.fill(call, bias);
    const cpu::IsaTable& isa = cpu::active();
    const py::gil_scoped_release release;
    std::shared_lock lock(mutex_);
    while (isa_ != &isa) {
      lock.unlock();
      repack<T>(isa);
      lock.lock();
    }
    call.b.data = panels<T>();
    multiply(isa, call);
  }

  DType type_;
  Index rows_, cols_;
  std::shared_mutex mutex_;
  const cpu::IsaTable* isa_ = nullptr;  // whose panels these are
  Arena panels_;
};

}  // namespace

void bind_packed(py::module_& m) {
  py::class_<PackedMatrix>(m, "PackedMatrix")
      .def(py::init<py::array, bool>(), py::arg("b"), py::arg("trans"))
      .def("refresh", &PackedMatrix::refresh, py::arg("b"), py::arg("trans"))
      .def("unpack", &PackedMatrix::unpack)
      .def("gemm", &PackedMatrix::gemm, py::arg("a"), py::arg("out") = py::none(), py::arg("alpha") = 1.0,
           py::arg("beta") = 0.0, py::arg("trans_a") = false, py::arg("bias") = py::none(),
           py::arg("activation") = "identity", py::arg("slope") = 1.0)
      .def_property_readonly("shape", &PackedMatrix::shape)
      .def_property_readonly("dtype", &PackedMatrix::dtype)
      .def_property_readonly("nbytes", &PackedMatrix::bytes);
}

}  // namespace gemmule::bindings
