// How a formula is spelled so that host, device and every ISA can share its one definition: `static` and
// always inlined, it leaves no symbol behind, so no linker can mix up copies compiled for different CPUs.
#pragma once

#if defined(__CUDACC__)
#define GM_INLINE static __host__ __device__ __forceinline__
#elif defined(__GNUC__) || defined(__clang__)
#define GM_INLINE static inline __attribute__((always_inline))
#else
#error "gemmule needs GCC or Clang (clang-cl on Windows): its kernels use vector extensions"
#endif
