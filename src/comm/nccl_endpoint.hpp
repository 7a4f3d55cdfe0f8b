// Messages between GPUs.
#pragma once

#include "comm/endpoint.hpp"

namespace sinew {

// Throws UserError where this libtorch was built without NCCL.
std::shared_ptr<Endpoint> connect_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                       const EndpointOptions& options);

}  // namespace sinew
