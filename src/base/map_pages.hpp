// Memory of mapped files that has done its service.
#pragma once

#include <cstddef>

namespace sinew {

// Whole pages of [data, data + bytes) of a map of a file may go, where they would else stay in memory as long as
// the map: they are read again when they are wanted.
void give_back_pages(const std::byte* data, std::size_t bytes);

}  // namespace sinew
