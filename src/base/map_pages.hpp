// What the system is told about the memory of mapped files.
#pragma once

#include <cstddef>

namespace sinew {

// Whole pages of [data, data + bytes) of a map of a file may go, where they would else stay in memory as long
// as the map: they are read again when they are wanted.
void give_back_pages(const std::byte* data, std::size_t bytes);

// A map of a file that is about to be read whole: what is not in memory yet comes in huge pages where the
// file system has them. Decoding from small pages is a fifth slower, each being looked up anew.
void ask_for_huge_pages(const std::byte* data, std::size_t bytes);

}  // namespace sinew
