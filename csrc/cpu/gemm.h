// C = act(alpha op(A) op(B) + beta C + bias), or times act', blocked and divided over a team.
#pragma once
#include "core/tensor.h"
#include "core/threads.h"
#include "cpu/kernels.h"

namespace gemmule::cpu {

template <class T>
struct Gemm {
  MatrixView<const T> a;  // M x K, any strides
  MatrixView<const T> b;  // K x N, any strides
  T* c;                   // M x N, rows c_row apart, columns adjacent; overlaps neither a nor b
  Index c_row;
  T alpha = 1, beta = 0;
  const T* bias = nullptr;  // N
  Act act = Act::identity;
  T slope = 1;
  // M x N, rows n apart, or nullptr. Then C is not activated but multiplied by act'(saved): the backward pass
  // of a layer.
  const T* saved = nullptr;
};

// Bytes of workspace that one team member needs for this product or one with fewer rows; addresses are not
// read.
template <class T>
Index gemm_workspace(const Kernels<T>& kernels, const Gemm<T>& call);

// How this product is computed, for people: "packed", "a in place", "b in place", "in place", "turned over".
template <class T>
const char* gemm_path(const Kernels<T>& kernels, const Gemm<T>& call);

// Called by every member of the team; `workspace` is the member's own. Each member computes a block of C, all
// of its depth, so the result does not depend on the size of the team. Ends without a barrier.
template <class T>
void gemm(const Kernels<T>& kernels, const Team& team, const Gemm<T>& call, void* workspace);

}  // namespace gemmule::cpu
