#include "plan/newton_schulz.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gemmule {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Size>
Index largest(const std::vector<MatrixPlace>& matrices, const Size& size) {
  Index most = 0;
  for (const MatrixPlace& m : matrices) most = std::max(most, size(m));
  return most;
}

Index count_of(const MatrixPlace& m) { return checked_mul(m.rows, m.cols); }
Index short_side(const MatrixPlace& m) { return std::min(m.rows, m.cols); }

template <class T>
void add_to_diagonal(std::byte* matrix, Index n, Span rows, double value) {
  T* at = reinterpret_cast<T*>(matrix);
  for (Index i = rows.begin; i < rows.end; ++i) at[i * (n + 1)] += static_cast<T>(value);
}

}  // namespace

NewtonSchulz::NewtonSchulz(const Backend& backend, DType type, const MuonArgs& args,
                           const std::vector<MatrixPlace>& matrices)
    : backend_(backend),
      type_(type),
      args_(args),
      members_(num_threads()),
      squares_(backend, largest(matrices, count_of)),
      other_(checked_mul(largest(matrices, count_of), size_of(type))) {
  const Index side = largest(matrices, short_side);
  gram_ = Arena(checked_mul(checked_mul(side, side), size_of(type)));
  square_ = Arena(gram_.bytes());
  for (const MatrixPlace& m : matrices) workspace_bytes_ = std::max(workspace_bytes_, workspace_of(m));
  workspace_bytes_ = round_up(workspace_bytes_, alignment);
  workspace_ = Arena(checked_mul(workspace_bytes_, members_));
}

Index NewtonSchulz::workspace_of(const MatrixPlace& place) const {
  const Index n = short_side(place);
  const bool tall = place.rows > place.cols;
  const Operand x = matrix(nullptr, place.rows, place.cols), gram = matrix(nullptr, n, n);
  const Team alone = Team::serial();
  const StepScalars scalars;
  const auto bytes = [&](const Operand& a, bool turned_a, const Operand& b, bool turned_b,
                         const Operand& out) {
    Attrs attrs;
    attrs.trans_a = turned_a;
    attrs.trans_b = turned_b;
    const Operand in[] = {a, b};
    return backend_.workspace(OpKind::matmul, type_, {alone, attrs, in, out, nullptr, scalars});
  };
  return std::max({bytes(x, tall, x, !tall, gram), bytes(gram, false, gram, false, gram),
                   tall ? bytes(x, false, gram, false, x) : bytes(gram, false, x, false, x)});
}

void NewtonSchulz::multiply(const Team& team, const Operand& a, bool turned_a, const Operand& b,
                            bool turned_b, const Operand& out) const {
  // A team that grew since has members without a workspace; a product does not depend on how many make it.
  if (team.rank() < members_) {
    const Team able(team.rank(), std::min(team.size(), members_), nullptr);
    Attrs attrs;
    attrs.trans_a = turned_a;
    attrs.trans_b = turned_b;
    const Operand in[] = {a, b};
    const StepScalars scalars;
    backend_.kernel(OpKind::matmul, type_)(
        {able, attrs, in, out, workspace_.data() + workspace_bytes_ * team.rank(), scalars});
  }
  team.barrier();
}

void NewtonSchulz::combine(const Team& team, Index n) const {
  const auto& [a, b, c] = args_.coefficients;
  const Span rows = team.share(n);
  const Index first = rows.begin * n * size_of(type_);
  backend_.axpby(type_, rows.size() * n, b, gram_.data() + first, c, square_.data() + first);
  (type_ == DType::f64 ? add_to_diagonal<double> : add_to_diagonal<float>)(square_.data(), n, rows, a);
  team.barrier();
}

bool NewtonSchulz::run(const Team& team, std::byte* x, Index rows, Index cols) {
  const Index count = rows * cols, n = std::min(rows, cols);
  squares_.take(team, 0, type_, count, infinity, x);
  team.barrier();
  const double norm = std::sqrt(squares_.total(SquareSum::pieces_of(count)));
  if (!(norm < infinity)) return false;

  // Begins where the last product will end in x.
  std::byte *from = args_.steps % 2 ? other_.data() : x, *to = args_.steps % 2 ? x : other_.data();
  const Span part = team.share(count, alignment / size_of(type_));
  const Index first = part.begin * size_of(type_);
  backend_.axpby(type_, part.size(), 1 / std::max(norm, args_.eps), x + first, 0, from + first);
  team.barrier();

  const bool tall = rows > cols;
  const Operand gram = matrix(gram_.data(), n, n), square = matrix(square_.data(), n, n);
  for (int step = 0; step < args_.steps; ++step, std::swap(from, to)) {
    const Operand now = matrix(from, rows, cols), next = matrix(to, rows, cols);
    multiply(team, now, tall, now, !tall, gram);
    multiply(team, gram, false, gram, false, square);
    combine(team, n);
    if (tall)
      multiply(team, now, false, square, false, next);
    else
      multiply(team, square, false, now, false, next);
  }
  return true;
}

}  // namespace gemmule
