// AVX2 and FMA. 6 x 16 (f32): 12 accumulators, 2 of B, 1 broadcast in 16 registers; 12 chains cover the FMA
// latency (4) times two units.
#define GEMMULE_ISA avx2
#define GEMMULE_ISA_NAME "avx2"
#define GEMMULE_VECTOR_BYTES 32
#define GEMMULE_TILE_ROWS 6
#define GEMMULE_TILE_VECTORS 2
#define GEMMULE_REGISTERS 16
#define GEMMULE_STRIP_ROWS 4
#define GEMMULE_DEPTH_BLOCK 384
// Strip and panel, 12 + 16 KB, share L1. At 192 the ends of tiles cost more: f64 512 and 1024 at 85 86 %, now
// 91 94.
#define GEMMULE_DEPTH_BLOCK_F64 256
#define GEMMULE_COLUMN_BLOCK_BYTES (384 * 1024)  // 3/4 of 512 KB, the L2 of Zen and of later Intel cores
#include "cpu/isa/table.inl"
