#include "train/run_directory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <fstream>

#include "base/error.hpp"
#include "base/files.hpp"

namespace sinew {
namespace {

void remove_old_run(const fs::path& root) {
  std::vector<fs::path> doomed;
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.toml" || name == "metrics.jsonl" || name == "checkpoints" || name == "model" ||
        name == "trace" || name == "trace.json" || name.starts_with("events.out.tfevents."))
      doomed.push_back(entry.path());
  }
  for (const auto& path : doomed) {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) throw IoError(fmt::format("{}: cannot remove: {}", path.string(), error.message()));
  }
}

}  // namespace

bool holds_run(const fs::path& root) {
  return fs::exists(root / "config.toml") || fs::exists(root / "checkpoints") ||
         fs::exists(root / "metrics.jsonl");
}

RunDirectory::RunDirectory(fs::path root, Mode mode) : root_(std::move(root)) {
  if (mode == Mode::join) return;
  require(mode != Mode::fresh || !holds_run(root_),
          "{}: holds a run already: --resume goes on with it, --overwrite starts it anew", root_.string());
  make_directories(root_);
  const fs::path lock = root_ / ".lock";
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw IoError(fmt::format("{}: cannot write here: {}", root_.string(), system_reason()));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    fail("{}: another `sinew train` is at work here", root_.string());
  }
  if (mode == Mode::overwrite) remove_old_run(root_);
}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);
}

std::string last_line(const fs::path& log) {
  std::ifstream file(log);
  std::string line, last;
  while (std::getline(file, line))
    if (!line.empty()) last = line;
  return last;
}

}  // namespace sinew
