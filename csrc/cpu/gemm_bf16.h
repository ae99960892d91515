// The product of gemm.h with operands rounded to bfloat16: sums, epilogue and C are float32.
#pragma once
#include "cpu/gemm.h"

namespace gemmule::cpu {

// These are what gemm_workspace, gemm_path and gemm come to where call.precision is bf16.
Index gemm_bf16_workspace(const Kernels<float>& kernels, const Gemm<float>& call);
const char* gemm_bf16_path(const Bf16Kernels& kernels);
void gemm_bf16(const Kernels<float>& kernels, const Team& team, const Gemm<float>& call, float* workspace);

}  // namespace gemmule::cpu
