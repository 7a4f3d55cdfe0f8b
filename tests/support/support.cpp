#include "support/support.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace sinew::test {

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "sinew-test-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

fs::path data_dir() {
  const char* set = std::getenv("SINEW_TEST_DATA");
  const fs::path path =
      set != nullptr ? fs::path(set) : fs::path(SINEW_SOURCE_DIR) / ".." / "shared" / "data";
  return fs::exists(path / "README.md") ? path : fs::path();
}

fs::path source_path(const std::string& relative) { return fs::path(SINEW_SOURCE_DIR) / relative; }

std::string slurp(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void spit(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  if (!file) throw std::runtime_error("cannot write " + path.string());
}

Run run_sinew(const std::vector<std::string>& arguments, const std::vector<std::string>& environment) {
  const TempDir dir;
  const fs::path out = dir / "out", err = dir / "err";
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen(out.c_str(), "w", stdout) == nullptr ||
        std::freopen(err.c_str(), "w", stderr) == nullptr)
      _exit(127);
    for (const auto& pair : environment) putenv(const_cast<char*>(pair.c_str()));
    std::vector<char*> argv{const_cast<char*>("sinew")};
    for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(SINEW_PROGRAM, argv.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return {code, slurp(out), slurp(err)};
}

}  // namespace sinew::test
