// C = act(alpha op(A) op(B) + beta C + bias), or times act', blocked and divided over a team.
#pragma once
#include <algorithm>

#include "core/tensor.h"
#include "core/threads.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

// How an operand lies. In panels, the columns of a matrix (K x N) stand in groups of panel_width(N), each
// group row by row, the last padded with zeros: (p, j) at [j / width * width * K + p * width + j % width].
// That is what the micro-kernel streams; weights that are used more than once are kept so. Listed rows or
// columns lie apart, each in one piece, at the addresses of a table: a batch that was never gathered.
enum class Form : std::uint8_t { strided, panels, panels_of_transpose, listed_rows, listed_columns };

template <class T>
Index panel_width(const GemmKernels<T>& k, Index cols) {
  return std::min<Index>(k.vectors * k.lanes, round_up(std::max<Index>(cols, 1), k.lanes));
}
template <class T>
Index whole_lines(Index elements) {
  return round_up(elements, in_a_line<T>);
}
template <class T>
Index panel_elements(const GemmKernels<T>& k, Index rows, Index cols) {
  return checked_mul(rows, round_up(cols, panel_width(k, cols)));
}

// Is given every stretch of C, `count` elements from `offset` on, as soon as it is complete and while it is
// in cache. A C that nobody else reads need not be stored: `keep` says whether it must be.
template <class T>
struct Listener {
  void (*take)(const Listener& self, Index offset, Index count, const T* stretch);
  bool keep;
  const T* beside = nullptr;  // of a dense C: what `take` reads at the same offset, to be fetched
};

template <class T>
struct Gemm {
  MatrixView<const T> a;  // M x K, any strides, unless the form says otherwise
  MatrixView<const T> b;  // K x N, the same
  T* c;                   // M x N, rows c_row apart, columns adjacent; overlaps neither a nor b
  Index c_row;
  Form a_form = Form::strided;  // or panels, or listed with a B or a C in panels
  Form b_form = Form::strided;
  Form c_form = Form::strided;            // or panels, then with neither bias nor activation
  const Listener<T>* listener = nullptr;  // where gemm_tells
  const T* const* a_list = nullptr;       // of a listed A
  T alpha = 1, beta = 0;
  const T* bias = nullptr;  // N
  Act act = Act::identity;
  T slope = 1;
  // M x N, rows n apart, or nullptr. Then C is not activated but multiplied by act'(saved): the backward pass
  // of a layer.
  const T* saved = nullptr;
  // What the operands are rounded to. bf16 is for T = float and strided forms.
  Precision precision = Precision::full;
};

// Up to how many columns of B a product with a listed A, or with its columns, is made in place: 0 where the
// rows, as long as that, lie badly for it.
template <class T>
Index most_columns_of_listed(Index row);

// `members`, or 1 where this product does not pay for a team of so many.
template <class T>
int gemm_members(const Gemm<T>& call, int members);

// Bytes of workspace that one team member needs for this product or one with fewer rows; addresses are not
// read.
template <class T>
Index gemm_workspace(const Kernels<T>& kernels, const Gemm<T>& call);

// How this product is computed, for people: "packed", "a in place", "b in place", "in place", "turned over".
template <class T>
const char* gemm_path(const Kernels<T>& kernels, const Gemm<T>& call);

// Whether this product tells a listener. C is in panels or dense.
template <class T>
bool gemm_tells(const Kernels<T>& kernels, const Gemm<T>& call);

// Called by every member of the team; `workspace` is the member's own. No sum is divided over members, so the
// result does not depend on the size of the team. Ends without a barrier.
template <class T>
void gemm(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, void* workspace);

}  // namespace gemmule::cpu
