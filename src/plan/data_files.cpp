#include "plan/data_files.hpp"

#include <cstdlib>

#include "base/error.hpp"

namespace sinew::plan {
namespace fs = std::filesystem;

fs::path data_dir() {
  if (const char* set = std::getenv("SINEW_DATA")) {
    require(fs::is_directory(fs::path(set) / "hardware"), "SINEW_DATA={}: no folder hardware in it", set);
    return set;
  }
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path installed = program.parent_path().parent_path() / "share" / "sinew" / "data";
  for (const fs::path& place : {installed, fs::path(SINEW_SOURCE_DATA)})
    if (fs::is_directory(place / "hardware", ignored)) return place;
  fail("no hardware catalogue: neither {} nor {} is there; set SINEW_DATA to a folder data",
       installed.string(), SINEW_SOURCE_DATA);
}

}  // namespace sinew::plan
