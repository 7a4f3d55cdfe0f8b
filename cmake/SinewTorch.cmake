# libtorch, and one precompiled header of its narrow core for all rooms that use it. torch/torch.h
# costs 20 s a file; ATen.h plus custom_function.h, precompiled, 1 to 3 s.
find_package(Torch REQUIRED)
add_library(sinew_torch INTERFACE)
target_include_directories(sinew_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(sinew_torch INTERFACE ${TORCH_LIBRARIES})
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(sinew_torch INTERFACE ${torch_flags})

# GPUs speak over NCCL where this libtorch holds it. Its header, of the same version, comes with libtorch's wheel
# for Python, with CUDA or with NVIDIA's package libnccl-dev: -DSINEW_NCCL_INCLUDE=FOLDER names another place.
set(SINEW_NCCL OFF)
if(TARGET torch_cuda)
  find_path(SINEW_NCCL_INCLUDE nccl.h
    HINTS ENV NCCL_HOME ENV CUDA_HOME ${CUDA_TOOLKIT_ROOT_DIR} ${CUDAToolkit_INCLUDE_DIRS}
          ${TORCH_INSTALL_PREFIX}/../nvidia/nccl ${TORCH_INSTALL_PREFIX}
    PATH_SUFFIXES include)
  include(CheckCXXSourceCompiles)
  include(CMakePushCheckState)
  cmake_push_check_state()
  set(CMAKE_REQUIRED_INCLUDES ${TORCH_INCLUDE_DIRS} ${SINEW_NCCL_INCLUDE})
  set(CMAKE_REQUIRED_LIBRARIES ${TORCH_LIBRARIES})
  set(CMAKE_REQUIRED_FLAGS "${TORCH_CXX_FLAGS} -DUSE_C10D_NCCL")
  check_cxx_source_compiles("
    #include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
    int main() { return c10d::ProcessGroupNCCL::Options::create() == nullptr; }" SINEW_NCCL_COMPILES)
  cmake_pop_check_state()
  if(SINEW_NCCL_COMPILES)
    set(SINEW_NCCL ON)
  else()
    message(WARNING "This libtorch is for GPUs, but several of them cannot be used together: nccl.h was not found "
                    "(-DSINEW_NCCL_INCLUDE=FOLDER), or this libtorch holds no NCCL")
  endif()
endif()
message(STATUS "NCCL: ${SINEW_NCCL}")

sinew_precompiled_header(sinew_torch_pch LIBS sinew_torch fmt::fmt Threads::Threads HEADERS
  <ATen/ATen.h> <torch/csrc/autograd/custom_function.h> <torch/csrc/autograd/autograd.h>)
