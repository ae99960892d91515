// AVX-512 (F, VL, BW, DQ). 12 x 32 (f32): 24 accumulators, 2 of B, 1 broadcast in 32 registers.
#define GEMMULE_ISA avx512
#define GEMMULE_ISA_NAME "avx512"
#define GEMMULE_VECTOR_BYTES 64
#define GEMMULE_TILE_ROWS 12
#define GEMMULE_TILE_VECTORS 2
#define GEMMULE_REGISTERS 32
#define GEMMULE_STRIP_ROWS 12
#define GEMMULE_DEPTH_BLOCK 384
// Beyond half of L1: a strip streams from L2 as B does, and C passes half as often. At 192 f64 512 to 4096
// ran at 87 to 90 % of the ceiling, now 88 to 92 (Zen 4).
#define GEMMULE_DEPTH_BLOCK_F64 384
#define GEMMULE_COLUMN_BLOCK_BYTES (768 * 1024)  // 3/4 of 1 MB, the smallest L2 of a core with AVX-512
#include "cpu/isa/table.inl"
