// sgemm_ and dgemm_ as the reference BLAS has them, on gemmule's kernels: for the reference testers alone.
#include <algorithm>
#include <cstdio>

#include "core/arena.h"
#include "core/threads.h"
#include "cpu/dispatch.h"
#include "cpu/gemm.h"

// Reports argument number `info`; the tester's own, which checks that it is told of the right one.
extern "C" void xerbla_(const char* routine, const int* info, std::size_t length);

namespace {

using namespace gemmule;

bool is_one_of(char letter, const char* upper) {
  for (; *upper; ++upper)
    if (letter == *upper || letter == *upper - 'A' + 'a') return true;
  return false;
}

// A column-major matrix with leading dimension `ld`, transposed where `trans` is T or C.
template <class T>
MatrixView<const T> operand(const T* data, char trans, Index rows, Index cols, Index ld) {
  return is_one_of(trans, "TC") ? MatrixView<const T>{data, rows, cols, ld, 1}
                                : MatrixView<const T>{data, rows, cols, 1, ld};
}

// The first argument that the standard does not allow, counting from 1; 0 if there is none.
int bad_argument(char trans_a, char trans_b, int m, int n, int k, int lda, int ldb, int ldc) {
  const int rows_a = is_one_of(trans_a, "N") ? m : k, rows_b = is_one_of(trans_b, "N") ? k : n;
  if (!is_one_of(trans_a, "NTC")) return 1;
  if (!is_one_of(trans_b, "NTC")) return 2;
  if (m < 0) return 3;
  if (n < 0) return 4;
  if (k < 0) return 5;
  if (lda < std::max(1, rows_a)) return 8;
  if (ldb < std::max(1, rows_b)) return 10;
  if (ldc < std::max(1, m)) return 13;
  return 0;
}

template <class T>
void gemm(const char* routine, char trans_a, char trans_b, int m, int n, int k, T alpha, const T* a, int lda,
          const T* b, int ldb, T beta, T* c, int ldc) {
  if (const int info = bad_argument(trans_a, trans_b, m, n, k, lda, ldb, ldc))
    return xerbla_(routine, &info, 6);
  // What tests/blas/run looks for: that these kernels were tested, and on which ISA.
  static const int announced =
      std::fprintf(stderr, "gemmule: %s isa=%s threads=%d\n", routine, cpu::active().name, num_threads());
  static_cast<void>(announced);
  if (m == 0 || n == 0) return;
  // Column-major C is row-major C^T = op(B)^T op(A)^T.
  cpu::Gemm<T> call;
  call.a = operand(b, trans_b, k, n, ldb).transposed();
  call.b = operand(a, trans_a, m, k, lda).transposed();
  if (alpha == T(0)) call.a.cols = call.b.rows = 0;  // A and B are not read
  call.c = c;
  call.c_row = ldc;
  call.alpha = alpha;
  call.beta = beta;
  const auto& kernels = cpu::kernels<T>();
  // A team for each of the tiny products, of which there are thousands, would take most of the time.
  const int members = Index{m} * n * k < 4096 ? 1 : num_threads();
  const Index each = round_up(cpu::gemm_workspace(kernels, call), alignment);
  static Arena workspace;
  if (workspace.bytes() < each * members) workspace = Arena(each * members);
  run_team(members,
           [&](const Team& team) { cpu::gemm(kernels, team, call, workspace.data() + each * team.rank()); });
}

}  // namespace

#define GEMMULE_BLAS_GEMM(name, NAME, T)                                                                  \
  extern "C" __attribute__((visibility("default"))) void name(                                            \
      const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k, const T* alpha, \
      const T* a, const int* lda, const T* b, const int* ldb, const T* beta, T* c, const int* ldc) {      \
    gemm(NAME, *trans_a, *trans_b, *m, *n, *k, *alpha, a, *lda, b, *ldb, *beta, c, *ldc);                 \
  }
GEMMULE_BLAS_GEMM(sgemm_, "SGEMM ", float)
GEMMULE_BLAS_GEMM(dgemm_, "DGEMM ", double)
#undef GEMMULE_BLAS_GEMM
