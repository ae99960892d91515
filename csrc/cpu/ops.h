// How the CPU runs the ops of the graph: what backend.cpp looks up, kept in one file a family.
#pragma once
#include "backend.h"

namespace gemmule::cpu {

struct CpuOp {
  OpKernel run = nullptr;
  Index (*workspace)(const OpCall& call) = nullptr;  // bytes a member needs; nullptr: none
  const char* (*path)(const OpCall& call) = nullptr;
};

// The ops of a family; no `run` for others.
template <class T>
CpuOp image_op(OpKind op);  // convolution, pooling
template <class T>
CpuOp norm_op(OpKind op);  // normalization over the batch
template <class T>
CpuOp group_norm_op(OpKind op);  // and within a sample
template <class T>
CpuOp layout_op(OpKind op);  // padding, sizes, channels

// Elements of a cache line: members' shares of a flat array begin at one.
inline constexpr Index line = alignment / static_cast<Index>(sizeof(float));

// Whether the op adds to what its result holds.
inline bool adds(const OpCall& call) { return call.attrs.accumulate && !call.scalars.first; }

}  // namespace gemmule::cpu
