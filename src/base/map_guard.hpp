// Watches over mapped files. When a file is cut short (or its disk fails) while it is mapped, the kernel
// answers the next touch of a lost page with SIGBUS, which would end the process. The guard's handler puts
// zero pages in place of what was lost and marks the map; whoever read from it asks check() before trusting
// the result. A file that was replaced by renaming or was unlinked stays whole for those who mapped it.
#pragma once

#include <cstddef>
#include <filesystem>

namespace sinew::map_guard {

// Registers the map of `size` bytes at `begin` of the file open as `fd`, which the guard owns from now on.
// Returns its number. Not called for empty files.
int add(const void* begin, std::size_t size, int fd, const std::filesystem::path& path);
void remove(int number);
// Throws IoError naming the file when pages of it were lost, or when it has been written to since add().
void check(int number);
void check_all();

}  // namespace sinew::map_guard
