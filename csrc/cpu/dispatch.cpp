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
};

#if defined(__x86_64__) || defined(_M_X64)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("fma");
}

// avx512 but for products in bfloat16.
const IsaTable avx512_bf16_table = [] {
  IsaTable table = avx512::table;
  table.name = "avx512_bf16";
  table.f32.bf16 = avx512_bf16::kernels;
  return table;
}();
#endif

// Best first; the last runs everywhere.
const Candidate candidates[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {&avx512_bf16_table, [] { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }},
    {&avx512::table, has_avx512},
    {&avx2::table, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
    {&baseline::table, [] { return true; }},
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

// GEMMULE_MAX_ISA caps the choice: the best at or below it that runs here.
const IsaTable* choose() {
  const char* cap = std::getenv("GEMMULE_MAX_ISA");
  bool allowed = !cap || !*cap;
  for (const Candidate& c : candidates) {
    if (!allowed && std::string(cap) == c.table->name) allowed = true;
    if (allowed && c.runs_here()) return c.table;
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
