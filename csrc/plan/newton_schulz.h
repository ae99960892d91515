// Muon's direction: a matrix made nearly orthogonal by Newton-Schulz, which is products alone. Jordan et al.
// 2024.
#pragma once
#include "plan/square_sum.h"

namespace gemmule {

// x / max(|x|, eps), then in each step x <- (a + b x x^T + c (x x^T)^2) x: singular values go towards 1,
// singular vectors stay. A tall matrix is multiplied from the other side, x (a + b x^T x + c (x^T x)^2),
// which is the same for its transpose.
class NewtonSchulz {
 public:
  // Room for the largest of these matrices, and for as many members as there are threads now.
  NewtonSchulz(const Backend& backend, DType type, const MuonArgs& args,
               const std::vector<MatrixPlace>& matrices);

  // x in place, by every member, behind a barrier and ending with one. False, and x as it was, where its norm
  // is not finite.
  bool run(const Team& team, std::byte* x, Index rows, Index cols);

 private:
  Operand matrix(std::byte* data, Index rows, Index cols) const { return {data, rows, cols, cols, type_}; }
  // out = op(a) op(b), `turned` operands transposed; ends with a barrier.
  void multiply(const Team& team, const Operand& a, bool turned_a, const Operand& b, bool turned_b,
                const Operand& out) const;
  Index workspace_of(const MatrixPlace& place) const;
  // square = a I + b gram + c square, this member's rows.
  void combine(const Team& team, Index n) const;

  const Backend& backend_;
  const DType type_;
  const MuonArgs args_;
  const int members_;  // that have a workspace
  Index workspace_bytes_ = 0;
  SquareSum squares_;
  Arena other_, gram_, square_, workspace_;
};

}  // namespace gemmule
