/* CUDA on one CPU thread: enough to run generated kernels and their library without a GPU. Threads
 * of a launch run from the last to the first, so that a loop wrongly marked parallel gives wrong
 * results. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct shim_index {
    unsigned x;
};
static shim_index blockIdx, threadIdx, blockDim;

#define __global__ __attribute__((unused))
#define EDGEC_LAUNCH(kernel, grid, block, ...)                                                     \
    do {                                                                                           \
        blockDim.x = block;                                                                        \
        for (blockIdx.x = grid; blockIdx.x-- > 0u;)                                                \
            for (threadIdx.x = block; threadIdx.x-- > 0u;)                                         \
                kernel(__VA_ARGS__);                                                               \
    } while (0)

enum cudaError_t { cudaSuccess, cudaErrorMemoryAllocation };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };

static inline cudaError_t cudaMalloc(void **p, size_t n) {
    *p = malloc(n);
    return *p == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
}
static inline cudaError_t cudaFree(void *p) {
    free(p);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpy(void *to, const void *from, size_t n, cudaMemcpyKind) {
    memcpy(to, from, n);
    return cudaSuccess;
}
static inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
static inline cudaError_t cudaDeviceSynchronize() {
    return cudaSuccess;
}
