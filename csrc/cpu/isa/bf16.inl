// Products in bfloat16 for an ISA that has no instruction for them: operands are rounded while they are
// packed, and the float32 kernels multiply them.
#pragma once
#include "cpu/isa/gemm.inl"
#include "cpu/isa/loops.h"

namespace gemmule::cpu::GEMMULE_ISA {

// The upper half of a float is a bfloat16: half of its last place and a carry for ties to even, then cut. NaN
// would carry into infinity, so it is cut as it is and made quiet.
GM_INLINE Vec<float> rounded_to_bf16(Vec<float> x) {
  const Bits<float> bits = Bits<float>(x);
  const Bits<float> nearest = bits + 0x7FFFu + ((bits >> 16) & 1u);
  const Bits<float> kept = select(x == x, nearest, bits | 0x400000u);
  return Vec<float>(
      select((bits & 0x7F800000u) == 0u, bits & 0x80000000u, kept & 0xFFFF0000u));  // subnormals are zeros
}

static void round_to_bf16(Index count, float* x) {
  map<float>(count, x, [](Vec<float> v) { return rounded_to_bf16(v); }, x);
}

static void pack_a_in_bf16(Index height, Index depth, const float* a, Index row, Index step, float* dst) {
  pack_a<float>(height, depth, a, row, step, dst);
  round_to_bf16(height * depth, dst);
}

static void pack_b_in_bf16(Index depth, Index cols, Index width, const float* b, Index row, Index step,
                           float* dst) {
  pack_b<float>(depth, cols, width, b, row, step, dst);
  round_to_bf16((cols + width - 1) / width * width * depth, dst);
}

constexpr Bf16Kernels bf16_kernels(const GemmKernels<float>& f32) {
  Bf16Kernels table = {};
  table.rows = f32.rows;
  table.vectors = f32.vectors;
  table.lanes = f32.lanes;
  table.terms = 1;
  table.depth_block = f32.depth_block;
  table.row_block = 2048;  // as in avx512_bf16.cpp
  table.column_block = f32.column_block;
  table.deep_chains = f32.deep_chains;
  table.deep_columns = f32.deep_columns;
  for (int r = 0; r < f32.rows; ++r)
    for (int v = 0; v < f32.vectors; ++v) {
      table.kernel[r][v] = f32.kernel[r][v];
      table.kernel_of_chains[r][v] = f32.kernel_of_chains[r][v];
    }
  table.pack_a = pack_a_in_bf16;
  table.pack_b = pack_b_in_bf16;
  return table;
}
constexpr Bf16Kernels bf16_kernels(const GemmKernels<double>&) { return {}; }

}  // namespace gemmule::cpu::GEMMULE_ISA
