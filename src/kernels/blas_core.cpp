#include "kernels/blas_core.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <array>

namespace sinew {

std::string openblas_core() {
  void* const symbol = ::dlsym(RTLD_DEFAULT, "openblas_get_corename");
  if (symbol == nullptr) return "";
  return reinterpret_cast<char* (*)()>(symbol)();
}

std::string_view better_blas_core(std::string_view core, Isa best) {
  constexpr std::array<std::string_view, 9> kBeforeAvx2{
      "Prescott", "Core2", "Penryn", "Dunnington", "Nehalem", "Atom", "Generic", "Sandybridge", "Katmai"};
  if (core.empty() || std::find(kBeforeAvx2.begin(), kBeforeAvx2.end(), core) == kBeforeAvx2.end()) return "";
  if (best >= Isa::avx512) return "SKYLAKEX";
  return best == Isa::avx2 ? "HASWELL" : "";
}

}  // namespace sinew
