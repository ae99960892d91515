// Lines of memory that are fetched while something else is computed.
#pragma once
#include "cpu/gemm_parts.h"

namespace gemmule::cpu {

// What the next strips are made of, fetched into L2 a few lines at a time while the tiles of these are
// computed: a strip of 6 x 341 then packs in 1,500 ticks, and otherwise in 3,000 (Zen 3, products of 1024).
template <class T>
struct Ahead {
  const T* const* list = nullptr;  // where the rows are, from `first` of each on; or
  const T* first_row = nullptr;    // they are `step` apart
  Index first = 0, step = 0;
  Index rows = 0, lines = 0;  // lines of a row
  Index share = 0;            // lines at a time

  void fetch() {
    for (Index i = 0; i < share; ++i, at_ += in_a_line<T>) {
      if (left_ == 0) {
        if (row_ == rows) return;
        at_ = list ? list[row_] + first : first_row + row_ * step;
        ++row_, left_ = lines;
      }
      --left_;
      __builtin_prefetch(at_, 0, 2);
    }
  }

 private:
  const T* at_ = nullptr;
  Index row_ = 0, left_ = 0;
};

// Some rows of A in some of the depth, as they lie; or, where it lies by columns, the last lines of those:
// the first ones came with the strip before.
template <class T>
Ahead<T> ahead_in(const Gemm<T>& call, Span rows, Span depth) {
  constexpr Index line = in_a_line<T>;
  const MatrixView<const T>& a = call.a;
  Ahead<T> ahead;
  ahead.rows = depth.size();
  ahead.lines = pieces(rows.size(), line);
  const Index last = rows.end - 1 - (ahead.lines - 1) * line;
  if (call.a_form == Form::listed_columns) {
    ahead.list = call.a_list + depth.begin;
    ahead.first = last;
    return ahead;
  }
  if (call.a_form == Form::strided && a.col_stride != 1) {
    ahead.first_row = a.data + last * a.row_stride + depth.begin * a.col_stride;
    ahead.step = a.col_stride;
    return ahead;
  }
  ahead.rows = rows.size();
  ahead.lines = pieces(depth.size(), line);
  if (call.a_form == Form::listed_rows) {
    ahead.list = call.a_list + rows.begin;
    ahead.first = depth.begin;
  } else {
    ahead.first_row = a.data + rows.begin * a.row_stride + depth.begin;
    ahead.step = a.row_stride;
  }
  return ahead;
}

}  // namespace gemmule::cpu
