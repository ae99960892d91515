// What every x86-64 CPU has: SSE2. 4 x 8 (f32): 8 accumulators, 2 of B, 1 broadcast and 1 product (there is
// no FMA) in 16 registers.
#define GEMMULE_ISA baseline
#define GEMMULE_ISA_NAME "baseline"
#define GEMMULE_VECTOR_BYTES 16
#define GEMMULE_TILE_ROWS 4
#define GEMMULE_TILE_VECTORS 2
#define GEMMULE_REGISTERS 16
#define GEMMULE_STRIP_ROWS 4
#define GEMMULE_DEPTH_BLOCK 384
#define GEMMULE_DEPTH_BLOCK_F64 192
#define GEMMULE_COLUMN_BLOCK_BYTES (192 * 1024)  // 3/4 of the smallest L2 met, 256 KB
#include "cpu/isa/table.inl"
