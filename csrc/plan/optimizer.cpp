#include "plan/optimizer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/scalar.h"
#include "core/subnormals.h"

namespace gemmule {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// A step whose gradients, weights and slots are within these magnitudes needs no rehearsal, if its settings
// keep everything that its formula meets within `safe_result`, which float32 holds with room for a sum.
// Beyond them it is rehearsed on copies first.
constexpr double safe_gradient = 1e9, safe_reach = 1e12, safe_result = 1e37;

// Squares of what is larger would leave double: the norms of max_norm are then not known.
constexpr double most_to_square = 1e150;

template <class Visit>
void visit_formula(Rule rule, const UpdateArgs& args, const Visit& visit) {
  with_update<ScalarMath<double>>(rule, args, visit);
}

bool bounded_by(Rule rule, const UpdateArgs& args) {
  const double gradient = safe_gradient + args.l1 + args.weight_decay * safe_reach;
  double bound = infinity;
  visit_formula(rule, args, [&](auto formula) { bound = formula.bound(args, gradient, safe_reach); });
  return bound <= safe_result;
}

UpdateArgs of_vectors(UpdateArgs args) {
  args.lr *= args.muon.vector_lr;
  args.weight_decay = args.muon.vector_decay;
  args.eps = args.muon.vector_eps;
  return args;
}

// By what Muon multiplies the rate for a matrix of this shape.
double shape_factor(const MuonArgs& args, Index rows, Index cols) {
  const auto high = static_cast<double>(rows), wide = static_cast<double>(cols);
  return args.match_rms ? 0.2 * std::sqrt(std::max(high, wide)) : std::sqrt(std::max(1.0, high / wide));
}

void check(const ParameterRange& range) {
  const Index size = range.store->size();
  require(range.begin >= 0 && range.begin <= range.end && range.end <= size, ErrorKind::value,
          "update: range [", range.begin, ", ", range.end, ") leaves a store of ", size);
  Index at = range.begin;
  for (const MatrixPlace& m : range.matrices) {
    require(m.rows > 0 && m.cols > 0 && m.begin >= at && checked_mul(m.rows, m.cols) <= range.end - m.begin,
            ErrorKind::value, "update: a matrix ", Shape{m.rows, m.cols}, " at ", m.begin,
            " leaves its range, or overlaps the one before");
    at = m.end();
  }
}

}  // namespace

Index slot_count(Rule rule, const UpdateArgs& args) {
  Index count = 0;
  visit_formula(rule, args, [&](auto formula) { count = decltype(formula)::slots; });
  return count + (args.ema != 0);
}

bool takes_matrices(Rule rule, const UpdateArgs& args) {
  return rule == Rule::muon || args.max_norm < infinity;
}

Stepper::Stepper(const Backend& backend, const Optimizer& optimizer)
    : backend_(backend),
      rule_(optimizer.rule),
      args_(optimizer.args),
      first_update_(optimizer.updates),
      updates_(optimizer.updates),
      rates_(optimizer.rates),
      ranges_(optimizer.ranges),
      settled_(settled(optimizer)) {
  for (auto& figures : figures_) figures.assign(max_threads, Figure{infinity});
  Index elements = 0;
  std::vector<MatrixPlace> matrices;
  for (const ParameterRange& range : ranges_) {
    check(range);
    divide(range);
    // Each range begins with a piece of its own.
    elements = checked_add(elements, round_up(range.end - range.begin, SquareSum::piece));
    matrices.insert(matrices.end(), range.matrices.begin(), range.matrices.end());
  }
  if (args_.clip_norm < infinity) squares_ = std::make_unique<SquareSum>(backend_, elements);
  if (rule_ == Rule::muon && !matrices.empty())
    orthogonal_ = std::make_unique<NewtonSchulz>(backend_, ranges_[0].store->type(), args_.muon, matrices);
}

void Stepper::divide(const ParameterRange& range) {
  if (!takes_matrices(rule_, args_)) {
    parts_.push_back({rule_, range});
    return;
  }
  const auto add = [&](Rule rule, Index begin, Index end, Index rows, Index cols) {
    if (begin >= end) return;
    Part part{rule, range, rows, cols};
    part.range.begin = begin;
    part.range.end = end;
    parts_.push_back(std::move(part));
  };
  const Rule of_rest = rule_ == Rule::muon ? Rule::adamw : rule_;
  Index at = range.begin;
  for (const MatrixPlace& m : range.matrices) {
    add(of_rest, at, m.begin, 0, 0);
    add(rule_, m.begin, m.end(), m.rows, m.cols);
    at = m.end();
  }
  add(of_rest, at, range.end, 0, 0);
}

bool Stepper::settled(const Optimizer& optimizer) {
  const UpdateArgs& a = optimizer.args;
  if (optimizer.rule != Rule::muon) return bounded_by(optimizer.rule, a);
  return bounded_by(Rule::muon_direction, a) && bounded_by(Rule::muon, a) &&
         bounded_by(Rule::adamw, of_vectors(a));
}

double Stepper::largest(const Team& team, Agreement about) const {
  double all = 0;
  for (int i = 0; i < team.size(); ++i)
    all = std::max(all, figures_[about][static_cast<std::size_t>(i)].value);
  return all;
}

UpdateArgs Stepper::args_now() const {
  UpdateArgs now = args_;
  if (rates_) now.lr = rates_[updates_ - first_update_];
  const double t = static_cast<double>(updates_ + 1);
  now.correction1 = rule_ == Rule::adagrad ? 1 + (t - 1) * args_.lr_decay : 1 - std::pow(args_.beta1, t);
  now.correction2 = 1 - std::pow(args_.beta2, t);
  return now;
}

UpdateArgs Stepper::args_of(const Part& part, const UpdateArgs& now) const {
  UpdateArgs args = now;
  if (rule_ == Rule::muon) {
    if (part.is_matrix())
      args.correction1 = 1 / shape_factor(args.muon, part.rows, part.cols);
    else
      args = of_vectors(args);
  }
  // Averaged once their rows are limited.
  if (part.is_matrix() && args.max_norm < infinity) args.ema = 0;
  return args;
}

bool Stepper::bounded(const Team& team, double factor, double dz, double x, bool sound) {
  const double reach = largest(team, magnitude);
  mine(team, gradient) = sound ? dz : infinity;
  mine(team, input) = x;
  team.barrier();
  return !squares_ &&  // a norm is known once all gradients are
         factor * largest(team, gradient) * std::max(largest(team, input), 1.0) <= safe_gradient &&
         reach <= safe_reach;
}

void Stepper::stepped(const Team& team, double reach) {
  // Read at the next step, behind the caller's barrier.
  mine(team, magnitude) = settled_ ? reach : infinity;
  if (team.leads()) ++updates_;
}

bool Stepper::stop(const Team& team, const char* reason) {
  if (team.leads()) reason_ = reason;
  return false;
}

bool Stepper::step(const Team& team, bool sound) {
  const SubnormalsAreZeros here;
  UpdateArgs now = args_now();
  const double reach = largest(team, magnitude);
  double figure = sound ? 0 : infinity;
  for (const ParameterRange& range : ranges_)
    figure = std::max(figure, backend_.max_gradient(range.store->type(), range, team));
  mine(team, gradient) = figure;
  team.barrier();
  double size = largest(team, gradient);
  if (size == infinity) return stop(team, sound ? "gradient" : "loss");
  if (squares_) {
    const double norm = gradient_norm(team, now.clip_value);
    if (norm == infinity) return stop(team, "norm of the gradients");
    now.scale = std::min(1.0, now.clip_norm / (norm + 1e-6));
  }
  if (orthogonal_) {
    size = std::max(size, find_directions(team, now));
    if (size == infinity) return stop(team, "update");
  }
  if (size > safe_gradient || reach > safe_reach) {
    const double most = now.max_norm < infinity ? most_to_square : std::numeric_limits<double>::max();
    if (rehearse(team, now) > most) return stop(team, "update");
  }
  const double written = update(team, now);
  if (now.max_norm < infinity) limit_rows(team, now);
  stepped(team, written);
  return true;
}

double Stepper::gradient_norm(const Team& team, double clip_value) {
  std::size_t pieces = 0;
  for (const ParameterRange& range : ranges_) {
    const DType type = range.store->type();
    const Index count = range.end - range.begin;
    squares_->take(team, pieces, type, count, clip_value, range.store->grads() + range.begin * size_of(type));
    pieces += SquareSum::pieces_of(count);
  }
  team.barrier();
  return std::sqrt(squares_->total(pieces));
}

double Stepper::find_directions(const Team& team, const UpdateArgs& now) {
  double figure = 0;
  for (const Part& part : parts_) {
    if (!part.is_matrix()) continue;
    const DType type = part.range.store->type();
    UpdateArgs args = now;
    args.ema = 0;
    backend_.update(type, Rule::muon_direction, args, part.range, team);
    team.barrier();
    std::byte* found = part.range.slots[1] + part.range.begin * size_of(type);
    if (!orthogonal_->run(team, found, part.rows, part.cols))
      figure = infinity;
    else
      figure = std::max(figure, backend_.max_abs({found, part.rows, part.cols, part.cols, type}, team));
  }
  mine(team, direction) = figure;
  team.barrier();
  return largest(team, direction);
}

double Stepper::rehearse(const Team& team, const UpdateArgs& now) {
  double figure = 0;
  for (const Part& part : parts_)
    figure = std::max(
        figure, backend_.rehearse(part.range.store->type(), part.rule, args_of(part, now), part.range, team));
  mine(team, rehearsal) = figure;
  team.barrier();
  return largest(team, rehearsal);
}

double Stepper::update(const Team& team, const UpdateArgs& now) {
  double written = 0;
  for (const Part& part : parts_)
    written = std::max(
        written, backend_.update(part.range.store->type(), part.rule, args_of(part, now), part.range, team));
  return written;
}

void Stepper::limit_rows(const Team& team, const UpdateArgs& now) const {
  team.barrier();
  for (const Part& part : parts_) {
    if (!part.is_matrix()) continue;
    const DType type = part.range.store->type();
    const Index row_bytes = part.cols * size_of(type), first = part.range.begin * size_of(type);
    std::byte* average = now.ema != 0 ? part.range.slots[slot_count(rule_, now) - 1] : nullptr;
    const Span rows = team.share(part.rows);
    for (Index i = rows.begin; i < rows.end; ++i) {
      const Index at = first + i * row_bytes;
      std::byte* row = part.range.store->values() + at;
      const double norm = std::sqrt(backend_.sum_squares(type, part.cols, infinity, row));
      if (norm > now.max_norm) backend_.axpby(type, part.cols, now.max_norm / norm, row, 0, row);
      if (average) backend_.axpby(type, part.cols, 1 - now.ema, row, now.ema, average + at);
    }
  }
}

}  // namespace gemmule
