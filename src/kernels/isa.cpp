#include "kernels/isa.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/error.hpp"
#include "base/text.hpp"

namespace sinew {
namespace {

constexpr std::array<std::string_view, 8> kNames{"scalar", "neon", "dotprod", "avx2",
                                                 "avx512", "vnni", "bf16",    "amx"};

// Those that this kind of processor may have.
#if defined(__x86_64__)
constexpr std::array kOfThisKind{Isa::scalar, Isa::avx2, Isa::avx512, Isa::vnni, Isa::bf16, Isa::amx};
#elif defined(__aarch64__)
constexpr std::array kOfThisKind{Isa::scalar, Isa::neon, Isa::dotprod};
#else
constexpr std::array kOfThisKind{Isa::scalar};
#endif

#if defined(__x86_64__)
// Linux lets a process use the 8 KiB of tile registers only after it has asked (arch_prctl(2)).
bool tiles_granted() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// Asked of the processor itself: clang 14's __builtin_cpu_supports does not know these names.
bool has_tiles() {
  constexpr unsigned kBf16 = 1U << 22, kTiles = 1U << 24, kInt8 = 1U << 25, kAll = kBf16 | kTiles | kInt8;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kAll) == kAll;
}
#endif

Isa detect_isa() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::scalar;
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
      !__builtin_cpu_supports("avx512vl"))
    return Isa::avx2;
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::vnni;
  const bool tiles = has_tiles() && tiles_granted();
  return tiles ? Isa::amx : Isa::bf16;
#elif defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kDotProducts = 1UL << 20;  // HWCAP_ASIMDDP
  return (::getauxval(AT_HWCAP) & kDotProducts) != 0 ? Isa::dotprod : Isa::neon;
#elif defined(__aarch64__)
  return Isa::neon;
#else
  return Isa::scalar;
#endif
}

std::string names_of(const std::vector<Isa>& sets) {
  std::vector<std::string> names;
  for (const Isa isa : sets) names.emplace_back(isa_name(isa));
  return join(names, ", ");
}

Isa chosen_isa() {
  const char* name = std::getenv("SINEW_ISA");
  if (name == nullptr) return best_isa();
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found != kNames.end()) {
    const auto isa = static_cast<Isa>(found - kNames.begin());
    const auto sets = available_isas();
    require(std::find(sets.begin(), sets.end(), isa) != sets.end(), "SINEW_ISA={}: this machine has only {}",
            name, names_of(sets));
    return isa;
  }
  fail("SINEW_ISA={}: unknown instruction set; this machine has {}", name, names_of(available_isas()));
}

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

Isa best_isa() {
  static const Isa isa = detect_isa();
  return isa;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> list;
  for (const Isa isa : kOfThisKind)
    if (isa <= best_isa()) list.push_back(isa);
  return list;
}

Isa active_isa() {
  static const Isa isa = chosen_isa();
  return isa;
}

}  // namespace sinew
