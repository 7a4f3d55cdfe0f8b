// Settings that libraries read only when a program is loaded, before its first line runs.
#pragma once

#include <string>
#include <string_view>

namespace sinew {

// GLIBC_TUNABLES that ask for huge pages under all that malloc gives out (glibc 2.35; older ones ignore it),
// beside what `now` says; "" where `now` has a say in that itself. Weights, gradients and moments are
// gigabytes read once a step: with pages of 4 KiB their address translations cost 5 % of a training step.
std::string tunables_with_huge_pages(std::string_view now);

// Starts this program anew with such settings where the user has not made them: huge pages, and
// OPENBLAS_CORETYPE where that gives better kernels (blas_core.hpp). Else returns. Call first thing in
// main().
void restart_with_better_settings(char** argv);

}  // namespace sinew
