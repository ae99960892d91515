// Fills the kernel table of the ISA whose file includes this.
#pragma once
#include "cpu/isa/bf16.inl"
#include "cpu/isa/depthwise.inl"
#include "cpu/isa/element.inl"
#include "cpu/isa/gemm.inl"
#include "cpu/isa/group_norm.inl"
#include "cpu/isa/norm.inl"
#include "cpu/isa/pool.inl"
#include "cpu/isa/skinny.inl"
#include "cpu/isa/winograd.inl"
#include "cpu/kernels.h"

namespace gemmule::cpu::GEMMULE_ISA {

template <class T>
constexpr Kernels<T> kernels() {
  constexpr Index depth = sizeof(T) == sizeof(float) ? GEMMULE_DEPTH_BLOCK : GEMMULE_DEPTH_BLOCK_F64;
  constexpr Index columns = GEMMULE_COLUMN_BLOCK_BYTES / depth / Index(sizeof(T));
  constexpr GemmKernels<T> gemm = gemm_kernels<T>(depth, columns);
  return {gemm,
          skinny_kernels<T>(),
          element_kernels<T>(),
          depthwise_kernels<T>(),
          winograd_kernels<T, 2>(),
          winograd_kernels<T, 4>(),
          pool_kernels<T>(),
          norm_kernels<T>(),
          row_norm_kernels<T>(),
          fma_chains<T>,
          bf16_kernels(gemm)};
}

extern const IsaTable table;
const IsaTable table = {GEMMULE_ISA_NAME, kernels<float>(), kernels<double>()};

}  // namespace gemmule::cpu::GEMMULE_ISA
