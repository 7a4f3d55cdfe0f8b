// What tests share: a folder of their own, the reference data if it is there, running the program.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sinew::test {

namespace fs = std::filesystem;

// Built with a sanitizer, which needs memory of its own.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// A fresh folder, removed at the end of its scope.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const fs::path& path() const { return path_; }
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

// The folder of shared reference data (SINEW_TEST_DATA, else ../shared/data beside the source tree),
// or an empty path. Tests that need it begin with SINEW_NEED_DATA().
fs::path data_dir();
#define SINEW_NEED_DATA() \
  if (sinew::test::data_dir().empty()) GTEST_SKIP() << "reference data not here (set SINEW_TEST_DATA)"

// A file of the source tree, e.g. source_path("configs/models").
fs::path source_path(const std::string& relative);

std::string slurp(const fs::path& path);
void spit(const fs::path& path, const std::string& text);

struct Run {
  int exit_code;       // 128 + signal when killed
  std::string output;  // standard output
  std::string error;   // standard error
};
// Runs `sinew` with these arguments and `environment` ("NAME=value") added.
Run run_sinew(const std::vector<std::string>& arguments, const std::vector<std::string>& environment = {});

}  // namespace sinew::test
