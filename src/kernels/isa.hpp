// Instruction sets: what this machine has, and which one the kernels use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sinew {

// In rising order; each includes those before it. `vnni` is AVX-512 with int8 dot products, `bf16` adds
// bfloat16 dot products, `amx` tiles for bf16 and int8 (and the kernel's leave to use them).
enum class Isa { scalar, avx2, avx512, vnni, bf16, amx };

std::string_view isa_name(Isa isa);
Isa best_isa();                     // the highest this machine has
std::vector<Isa> available_isas();  // scalar .. best_isa()

// What the kernels use: SINEW_ISA=scalar|avx2|avx512|vnni|bf16|amx if set (UserError when this machine
// lacks it or the name is unknown), else best_isa(). Read once.
Isa active_isa();

}  // namespace sinew
