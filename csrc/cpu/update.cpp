#include "cpu/update.h"

#include <algorithm>

#include "cpu/dispatch.h"

namespace gemmule::cpu {
namespace {

constexpr Index line = alignment / static_cast<Index>(sizeof(float));

// This member's part of each segment of a range, as pointers. Segments are cut like the products that write
// their gradients, so that a member mostly updates what lies in its own cache.
template <class T>
struct SegmentPart {
  Index count;
  T *value, *grad, *slots[max_slots];
};

template <class T, class Visit>
void for_each_part(const ParameterRange& range, const Team& team, const Visit& visit) {
  const Store& store = *range.store;
  for (std::size_t i = 0; i < store.offsets().size(); ++i) {
    const Index begin = std::max(range.begin, store.offsets()[i]);
    const Index end = std::min(range.end, store.offsets()[i] + store.counts()[i]);
    if (begin >= end) continue;
    const Span part = team.share(end - begin, line);
    if (part.size() <= 0) continue;
    const Index at = begin + part.begin;
    SegmentPart<T> found{
        part.size(), reinterpret_cast<T*>(store.values()) + at, reinterpret_cast<T*>(store.grads()) + at, {}};
    for (int k = 0; k < max_slots; ++k)
      if (range.slots[k]) found.slots[k] = reinterpret_cast<T*>(range.slots[k]) + at;
    visit(found);
  }
}

template <class T>
double update_of(Rule rule, const UpdateArgs& args, const ParameterRange& range, const Team& team) {
  double reach = 0;
  for_each_part<T>(range, team, [&](const SegmentPart<T>& part) {
    reach = std::max(reach,
                     kernels<T>().element.update(rule, args, part.count, part.value, part.grad, part.slots));
  });
  return reach;
}

template <class T>
double rehearse_of(Rule rule, const UpdateArgs& args, const ParameterRange& range, const Team& team) {
  constexpr Index piece = 512;  // a copy of it for the weights and for each slot stays in L1
  T weight[piece], copies[max_slots][piece];
  double reach = 0;
  for_each_part<T>(range, team, [&](const SegmentPart<T>& part) {
    for (Index at = 0; at < part.count; at += piece) {
      const Index count = std::min(piece, part.count - at);
      std::copy_n(part.value + at, count, weight);
      T* slots[max_slots] = {};
      for (int k = 0; k < max_slots; ++k) {
        if (!part.slots[k]) continue;
        std::copy_n(part.slots[k] + at, count, copies[k]);
        slots[k] = copies[k];
      }
      reach = std::max(reach, kernels<T>().element.update(rule, args, count, weight, part.grad + at, slots));
    }
  });
  return reach;
}

template <class T>
double max_gradient_of(const ParameterRange& range, const Team& team) {
  double largest = 0;
  for_each_part<T>(range, team, [&](const SegmentPart<T>& part) {
    largest = std::max(largest, kernels<T>().element.max_abs(part.count, part.grad));
  });
  return largest;
}

template <class T>
double sum_squares_of(Index count, double limit, const std::byte* x) {
  return kernels<T>().element.sum_squares(count, static_cast<T>(limit), reinterpret_cast<const T*>(x));
}

template <class T>
void axpby_of(Index count, double a, const std::byte* x, double b, std::byte* y) {
  kernels<T>().element.axpby(count, static_cast<T>(a), reinterpret_cast<const T*>(x), static_cast<T>(b),
                             reinterpret_cast<T*>(y));
}

}  // namespace

double update(DType type, Rule rule, const UpdateArgs& args, const ParameterRange& range, const Team& team) {
  return (type == DType::f64 ? update_of<double> : update_of<float>)(rule, args, range, team);
}

double rehearse(DType type, Rule rule, const UpdateArgs& args, const ParameterRange& range,
                const Team& team) {
  return (type == DType::f64 ? rehearse_of<double> : rehearse_of<float>)(rule, args, range, team);
}

double max_gradient(DType type, const ParameterRange& range, const Team& team) {
  return (type == DType::f64 ? max_gradient_of<double> : max_gradient_of<float>)(range, team);
}

double sum_squares(DType type, Index count, double limit, const std::byte* x) {
  return (type == DType::f64 ? sum_squares_of<double> : sum_squares_of<float>)(count, limit, x);
}

void axpby(DType type, Index count, double a, const std::byte* x, double b, std::byte* y) {
  (type == DType::f64 ? axpby_of<double> : axpby_of<float>)(count, a, x, b, y);
}

}  // namespace gemmule::cpu
