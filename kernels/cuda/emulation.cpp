// Fibers for emulation.h, and all kernels as one library of host code.
#include "emulation.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emulation {
Dim3 thread, block, block_dim, grid_dim;
unsigned char* dynamic_shared;

constexpr unsigned MAX_THREADS = 1024;
constexpr size_t STACK = 128 << 10;
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
  State state;
  unsigned exchanges;  // warp operations so far: their parity chooses the buffer
#if defined(__x86_64__)
  void* stack;
#else
  ucontext_t context;
#endif
};

struct Warp {
  unsigned arrived;
  uint64_t words[2][32][8];
};

static Fiber fibers[MAX_THREADS];
static Warp warps[MAX_THREADS / 32];
static unsigned current, num_threads, num_at_barrier, num_done;
static unsigned char* stacks;
static void (*body)(const void*);
static const void* arguments;
static const char* kernel_name;

[[noreturn]] static void fail(const char* what) {
  fprintf(stderr, "emulation: %s: %s, block %u,%u,%u thread %u\n", kernel_name, what, block.x, block.y, block.z, current);
  abort();
}

#if defined(__x86_64__)
static void* scheduler_stack;
extern "C" void pinion_switch(void** save, void* to);
asm(R"(
.text
.globl pinion_switch
.hidden pinion_switch
.type pinion_switch,@function
pinion_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
static void resume(unsigned index) { pinion_switch(&scheduler_stack, fibers[index].stack); }
static void yield() { pinion_switch(&fibers[current].stack, scheduler_stack); }
#else
static ucontext_t scheduler;
static void resume(unsigned index) { swapcontext(&scheduler, &fibers[index].context); }
static void yield() { swapcontext(&fibers[current].context, &scheduler); }
#endif

static void release_block_if_all() {
  if (num_at_barrier == 0 || num_at_barrier + num_done != num_threads) return;
  num_at_barrier = 0;
  for (unsigned i = 0; i < num_threads; i++)
    if (fibers[i].state == AT_BLOCK_BARRIER) fibers[i].state = READY;
}

static void run_fiber() {
  body(arguments);
  fibers[current].state = DONE;
  num_done++;
  release_block_if_all();
  yield();
  fail("a finished thread was resumed");
}

static void start(unsigned index) {
  unsigned char* top = stacks + (index + 1) * STACK;
  fibers[index].state = READY;
  fibers[index].exchanges = 0;
#if defined(__x86_64__)
  void** stack = (void**)top;
  *--stack = nullptr;  // the return address of run_fiber, which keeps the stack aligned
  *--stack = (void*)run_fiber;
  stack -= 6;
  fibers[index].stack = stack;
#else
  getcontext(&fibers[index].context);
  fibers[index].context.uc_stack.ss_sp = top - STACK;
  fibers[index].context.uc_stack.ss_size = STACK;
  fibers[index].context.uc_link = nullptr;
  makecontext(&fibers[index].context, run_fiber, 0);
#endif
}

unsigned lane() { return thread.x % 32; }

void block_barrier() {
  fibers[current].state = AT_BLOCK_BARRIER;
  num_at_barrier++;
  release_block_if_all();
  yield();
}

const uint64_t (*exchange(const uint64_t* value, int words))[8] {
  Warp& warp = warps[current / 32];
  unsigned parity = fibers[current].exchanges++ % 2;
  memcpy(warp.words[parity][current % 32], value, words * 8);
  if (++warp.arrived == 32) {
    warp.arrived = 0;
    for (unsigned i = current / 32 * 32; i < current / 32 * 32 + 32; i++)
      if (fibers[i].state == AT_WARP_BARRIER) fibers[i].state = READY;
  } else {
    fibers[current].state = AT_WARP_BARRIER;
    yield();
  }
  return warp.words[parity];
}

static void run_block(unsigned order) {
  num_at_barrier = num_done = 0;
  memset(warps, 0, sizeof warps);
  for (unsigned i = 0; i < num_threads; i++) start(i);
  while (num_done < num_threads) {
    bool any = false;
    for (unsigned i = 0; i < num_threads; i++) {
      // Ascending, descending, or with the warps interleaved.
      unsigned index = order % 3 == 0 ? i : order % 3 == 1 ? num_threads - 1 - i : i % (num_threads / 32) * 32 + i / (num_threads / 32);
      if (fibers[index].state != READY) continue;
      current = index;
      thread = {index, 0, 0};
      resume(index);
      any = true;
    }
    if (!any) fail("not all threads reach a barrier");
  }
}
}  // namespace emulation

// Runs a kernel that this library exports; `order` chooses the order of threads.
extern "C" __attribute__((visibility("default"))) void pinion_emulate(const char* name, void (*kernel)(const void*),
                                                                      const unsigned* grid, unsigned threads,
                                                                      unsigned shared, const void* args, unsigned order) {
  using namespace emulation;
  static unsigned char* memory = nullptr;
  kernel_name = name;
  if (!stacks) {
    stacks = (unsigned char*)mmap(nullptr, MAX_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = (unsigned char*)aligned_alloc(128, 256 << 10);
    memset(memory, 0xff, 256 << 10);
  }
  if (threads == 0 || threads > MAX_THREADS || threads % 32 || shared > (228u << 10)) fail("a bad shape of block");
  body = kernel;
  arguments = args;
  num_threads = threads;
  dynamic_shared = memory;
  block_dim = {threads, 1, 1};
  grid_dim = {grid[0], grid[1], grid[2]};
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        block = {x, y, z};
        run_block(order);
      }
}

#include "attention.cu"
#include "attention_mma.cu"
#include "elementwise.cu"
#include "embedding.cu"
#include "kv_cache.cu"
#include "linear_bf16.cu"
#include "linear_f32.cu"
#include "linear_quantized.cu"
#include "rms_norm.cu"
#include "rope.cu"
#include "rows.cu"
#include "sample.cu"
