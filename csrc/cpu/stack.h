// Stacks of products: C_s = A_s B_s, all of one shape, divided over a team.
#pragma once
#include <vector>

#include "cpu/gemm.h"

namespace gemmule::cpu {

// An axis of a stack: its length, and how far its matrices lie apart in A, B and C.
struct StackAxis {
  Index count, a, b, c;
};

template <class T>
struct GemmStack {
  Gemm<T> first;                // at index 0 of every axis; plain operands and result, no epilogue
  std::vector<StackAxis> axes;  // slowest first
  const T* b_end;               // one past the last element of all B
};

// The same products over fewer axes: those that lie evenly apart become one; where b repeats one matrix, the
// rows of the stack become rows of one product.
template <class T>
void join_axes(GemmStack<T>& stack);

template <class T>
Index stack_workspace(const Kernels<T>& kernels, const GemmStack<T>& stack);

// Called by every member of the team, like gemm(): each makes some of the products, or where those are few
// and large a part of each. Either way a product has the bits that gemm() gives it.
template <class T>
void gemm_stack(const Kernels<T>& kernels, const Team& team, const GemmStack<T>& stack, void* workspace);

}  // namespace gemmule::cpu
