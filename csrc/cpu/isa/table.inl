// Fills the kernel table of the ISA whose file includes this.
#pragma once
#include "cpu/isa/bf16.inl"
#include "cpu/isa/element.inl"
#include "cpu/isa/gemm.inl"
#include "cpu/isa/skinny.inl"
#include "cpu/kernels.h"

namespace gemmule::cpu::GEMMULE_ISA {

template <class T>
constexpr Kernels<T> kernels() {
  // GEMMULE_DEPTH_BLOCK counts floats: a strip of A, rows x depth, takes the same part of L1, at most half,
  // in either type.
  constexpr Index depth = GEMMULE_DEPTH_BLOCK * Index(sizeof(float)) / Index(sizeof(T));
  constexpr Index columns = GEMMULE_COLUMN_BLOCK_BYTES / depth / Index(sizeof(T));
  constexpr GemmKernels<T> gemm = gemm_kernels<T>(depth, columns);
  return {gemm, skinny_kernels<T>(), element_kernels<T>(), fma_chains<T>, bf16_kernels(gemm)};
}

extern const IsaTable table;
const IsaTable table = {GEMMULE_ISA_NAME, kernels<float>(), kernels<double>()};

}  // namespace gemmule::cpu::GEMMULE_ISA
