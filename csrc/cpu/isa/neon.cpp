// Arm's baseline. 8 x 12 (f32): 24 accumulators, 3 of B and the broadcast operand in 32 registers.
#define GEMMULE_ISA neon
#define GEMMULE_ISA_NAME "neon"
#define GEMMULE_VECTOR_BYTES 16
#define GEMMULE_TILE_ROWS 8
#define GEMMULE_TILE_VECTORS 3
#define GEMMULE_REGISTERS 32
#define GEMMULE_STRIP_ROWS 8
#define GEMMULE_DEPTH_BLOCK 384
#define GEMMULE_DEPTH_BLOCK_F64 192
#define GEMMULE_COLUMN_BLOCK_BYTES (384 * 1024)  // 3/4 of 512 KB
#include "cpu/isa/table.inl"
