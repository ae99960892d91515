// Lines of memory that are fetched while something else is computed.
#pragma once
#include "core/lines.h"

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

}  // namespace gemmule::cpu
