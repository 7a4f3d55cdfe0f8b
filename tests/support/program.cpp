#include "support/program.hpp"

namespace sinew::test {

std::string sinew_program() { return SINEW_PROGRAM; }

}  // namespace sinew::test
