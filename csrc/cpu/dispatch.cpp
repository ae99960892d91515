#include "cpu/dispatch.h"

#include <atomic>
#include <cstdlib>

#include "core/error.h"

namespace gemmule::cpu {

#define GEMMULE_DECLARE_ISA(name) \
  namespace name {                \
  extern const IsaTable table;    \
  }
#if defined(__x86_64__) || defined(_M_X64)
GEMMULE_DECLARE_ISA(avx512)
namespace avx512_bf16 {
extern const Bf16Kernels kernels;
}
GEMMULE_DECLARE_ISA(avx2)
GEMMULE_DECLARE_ISA(baseline)
#elif defined(__aarch64__)
GEMMULE_DECLARE_ISA(neon)
#else
#error "no kernels for this processor: see CONTRIBUTING.md, 'add an ISA'"
#endif
#undef GEMMULE_DECLARE_ISA

namespace {

struct Candidate {
  const IsaTable* table;
  bool (*runs_here)();
  bool (*pays)() = [] { return true; };  // whether it is taken where nobody names it
};

#if defined(__x86_64__) || defined(_M_X64)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("fma");
}

// Intel's cores begin a `vdpbf16ps` of 512 bits every 2.2 cycles, for 32 products, and two FMAs every cycle,
// for 32 (Emerald Rapids): 2048 x 2048 in bfloat16 takes 1.7 times as long as in float32, and without the
// instruction 1.02. AMD's begin one a cycle, and one FMA (Zen 4).
bool has_fast_bf16() { return !__builtin_cpu_is("intel"); }

// Deep blocks of B, 4.5 MB, where L3 hands it out as fast as it is multiplied: Zen 4's does, at 5 bytes a
// cycle; Emerald Rapids' gives a core 14 GB/s. A product in float32 or float64 is cut into the same
// sums either way; in bfloat16 blocks are cut first, and sums may end elsewhere.
template <class T, class Kernels>
void make_deep(Kernels& k) {
  constexpr Index depth = 1152, columns = 9 * 512 * 1024 / depth / Index(sizeof(T));
  k.deep_chains = depth / k.depth_block;
  k.deep_columns = columns;
}
IsaTable for_this_cpu(IsaTable table) {
  if (!__builtin_cpu_is("amd")) return table;
  make_deep<float>(table.f32.gemm);
  make_deep<float>(table.f32.bf16);
  make_deep<double>(table.f64.gemm);
  return table;
}

// avx512 but for products in bfloat16.
const IsaTable avx512_bf16_table = [] {
  IsaTable table = avx512::table;
  table.name = "avx512_bf16";
  table.f32.bf16 = avx512_bf16::kernels;
  return for_this_cpu(table);
}();
const IsaTable avx512_table = for_this_cpu(avx512::table), avx2_table = for_this_cpu(avx2::table),
               baseline_table = for_this_cpu(baseline::table);
#endif

// Best first, where they pay; the last runs everywhere.
const Candidate candidates[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {&avx512_bf16_table, [] { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }, has_fast_bf16},
    {&avx512_table, has_avx512},
    {&avx2_table, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {&baseline_table, [] { return true; }},
#else
    {&neon::table, [] { return true; }},
#endif
};

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const IsaTable* find(const std::string& name) {
  for (const Candidate& c : candidates) {
    if (name != c.table->name) continue;
    require(c.runs_here(), ErrorKind::device, "ISA '", name, "' cannot run on this CPU, which has ",
            list(supported_isas()));
    return c.table;
  }
  fail(ErrorKind::value, "unknown ISA '", name, "'; known are ", list(known_isas()));
}

// GEMMULE_MAX_ISA caps the choice: the best at or below it that runs here, itself even where it does not pay.
const IsaTable* choose() {
  const char* cap = std::getenv("GEMMULE_MAX_ISA");
  bool allowed = !cap || !*cap;
  for (const Candidate& c : candidates) {
    const bool named = cap && std::string(cap) == c.table->name;
    allowed = allowed || named;
    if (allowed && c.runs_here() && (named || c.pays())) return c.table;
  }
  fail(ErrorKind::value, "GEMMULE_MAX_ISA is '", cap ? cap : "", "'; known are ", list(known_isas()));
}

std::atomic<const IsaTable*> chosen{nullptr};

}  // namespace

std::vector<std::string> known_isas() {
  std::vector<std::string> names;
  for (const Candidate& c : candidates) names.push_back(c.table->name);
  return names;
}

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Candidate& c : candidates)
    if (c.runs_here()) names.push_back(c.table->name);
  return names;
}

const IsaTable& active() {
  const IsaTable* table = chosen.load(std::memory_order_acquire);
  if (!table) {
    table = choose();
    chosen.store(table, std::memory_order_release);
  }
  return *table;
}

void force_isa(const std::string& name) { chosen.store(find(name), std::memory_order_release); }

}  // namespace gemmule::cpu
