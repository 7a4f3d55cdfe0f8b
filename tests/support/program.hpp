// The program under test, for tests that start it in ways run_sinew() does not.
#pragma once

#include <string>

namespace sinew::test {

std::string sinew_program();

}  // namespace sinew::test
