// RUN/: config.toml, metrics.jsonl, events.out.tfevents.*, checkpoints/, model/, trace/.
#pragma once

#include <filesystem>
#include <string>

namespace sinew {

class RunDirectory {
 public:
  enum class Mode { fresh, resume, overwrite, join };

  // Makes it where absent and locks it against a second `sinew train`. Throws UserError when it holds a run
  // and mode is fresh, when it cannot be written, or when another process trains in it. `overwrite` removes
  // the files of the old run, and no others. `join`: another rank has made and locked it.
  RunDirectory(std::filesystem::path root, Mode mode);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path config() const { return root_ / "config.toml"; }
  std::filesystem::path metrics() const { return root_ / "metrics.jsonl"; }
  std::filesystem::path checkpoints() const { return root_ / "checkpoints"; }
  std::filesystem::path model() const { return root_ / "model"; }
  std::filesystem::path trace() const { return root_ / "trace"; }

 private:
  std::filesystem::path root_;
  int lock_ = -1;
};

// Whether `root` holds a run's files.
bool holds_run(const std::filesystem::path& root);

// The last line of a file that is not empty: what a process that failed said. "" where there is none.
std::string last_line(const std::filesystem::path& log);

}  // namespace sinew
