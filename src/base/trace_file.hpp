// The spans of one rank in a file: a line that says whose they are and what its clock reads, then a line a
// span. `sinew trace` joins the files of all ranks (inspect/trace.hpp).
//
//   {"rank":3,"label":"pipeline 1","wall":1700000000000000000,"steady":123456789}    nanoseconds
//   ["forward 2","compute",123456999,4000]                                           name, kind, begin,
//   length
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "base/spans.hpp"

namespace sinew {

class TraceFile {
 public:
  // Written anew. Throws IoError.
  TraceFile(const std::filesystem::path& path, int rank, const std::string& label);
  ~TraceFile();
  TraceFile(const TraceFile&) = delete;
  TraceFile& operator=(const TraceFile&) = delete;
  void write(std::span<const SpanEvent> events);  // one write() for all; throws IoError

 private:
  void put(const std::string& text);
  std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace sinew
