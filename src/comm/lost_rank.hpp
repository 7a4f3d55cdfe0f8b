// A rank that others wait for failed, went or took too long: the consequence of an error told elsewhere.
#pragma once

#include "base/error.hpp"

namespace sinew {

class LostRank : public Error {
 public:
  using Error::Error;
};

}  // namespace sinew
