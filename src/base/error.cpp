#include "base/error.hpp"

#include <cerrno>
#include <cstring>

namespace sinew {

std::string system_reason() {
  char buffer[256];
  return strerror_r(errno, buffer, sizeof buffer);
}

}  // namespace sinew
