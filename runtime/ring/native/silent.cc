// The code of silent oblivious transfer: a convolution of 24 random taps and one fixed, and sums of a few places.

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#define WIDE __attribute__((target("avx512f")))
#endif

namespace {

constexpr int kTaps = 25;
constexpr uint64_t kAhead = 64;  // places whose blocks are fetched before they are summed

struct Block {
  uint64_t low, high;
};

inline void add(Block& to, Block x, uint64_t mask) {
  to.low ^= x.low & mask;
  to.high ^= x.high & mask;
}

#if defined(WIDE)

// What is still to be added to the next blocks lies in registers, four blocks in each, and moves on by one block a step.
WIDE void convolved_wide(Block* x, const uint32_t* taps, uint64_t n) {
  constexpr int kWindow = 7;
  alignas(64) Block left[4 * kWindow];
  uint8_t halves[16];
  for (int four = 0; four < 16; ++four) {
    halves[four] = 0;
    for (int bit = 0; bit < 4; ++bit) halves[four] |= ((four >> bit) & 1) * (3 << 2 * bit);
  }
  __m512i window[kWindow + 1];
  for (auto& w : window) w = _mm512_setzero_si512();
  for (uint64_t i = 0; i < n; ++i) {
    __m128i* const at = (__m128i*)x + i;
    const __m128i block = _mm_xor_si128(_mm_loadu_si128(at), _mm512_castsi512_si128(window[0]));
    _mm_storeu_si128(at, block);
    const __m512i own = _mm512_broadcast_i32x4(block);
    for (int k = 0; k < kWindow; ++k) {
      const __m512i moved = _mm512_alignr_epi64(window[k + 1], window[k], 2);
      window[k] = _mm512_mask_xor_epi64(moved, halves[(taps[i] >> 4 * k) & 15], moved, own);
    }
  }
  for (int k = 0; k < kWindow; ++k) _mm512_store_si512((__m512i*)left + k, window[k]);
  for (int j = 0; j < kTaps; ++j) add(x[j], left[j], ~uint64_t{0});
}

#endif

}  // namespace

extern "C" {

// For each i in order: x[i + 1 + j] ^= x[i] for each bit j of taps[i], around the end. n is 32 or more.
void spuvm_code_convolved(Block* x, const uint32_t* taps, uint64_t n) {
#if defined(WIDE)
  if (__builtin_cpu_supports("avx512f")) return convolved_wide(x, taps, n);
#endif
  uint64_t i = 0;
  for (; i + kTaps < n; ++i) {
    const Block own = x[i];
    const uint32_t t = taps[i];
    for (int j = 0; j < kTaps; ++j) add(x[i + 1 + j], own, 0 - static_cast<uint64_t>((t >> j) & 1));
  }
  for (; i < n; ++i)
    for (int j = 0; j < kTaps; ++j) add(x[(i + 1 + j) % n], x[i], 0 - static_cast<uint64_t>((taps[i] >> j) & 1));
}

// The same of single bits, a byte each: what is still to be added lies in a window.
void spuvm_code_convolved_bits(uint8_t* x, const uint32_t* taps, uint64_t n) {
  uint32_t window = 0;
  for (uint64_t i = 0; i < n; ++i) {
    x[i] ^= window & 1;
    window = (window >> 1) ^ (taps[i] & (0 - static_cast<uint32_t>(x[i])));
  }
  for (int j = 0; j < kTaps; ++j) x[j % n] ^= (window >> j) & 1;
}

// out[r] = the sum of x at `weight` places, numbers modulo a power of two.
void spuvm_code_summed(Block* out, const Block* x, const uint32_t* places, uint64_t rows, uint64_t weight, uint32_t mask) {
  const uint32_t* const last = places + (rows * weight > kAhead ? rows * weight - kAhead : 0);
  for (uint64_t r = 0; r < rows; ++r, places += weight) {
    Block sum{0, 0};
    for (uint64_t k = 0; k < weight; ++k) {
      if (places + k < last) __builtin_prefetch(x + (places[k + kAhead] & mask));
      add(sum, x[places[k] & mask], ~uint64_t{0});
    }
    out[r] = sum;
  }
}

void spuvm_code_summed_bits(uint8_t* out, const uint8_t* x, const uint32_t* places, uint64_t rows, uint64_t weight,
                            uint32_t mask) {
  for (uint64_t r = 0; r < rows; ++r, places += weight) {
    uint8_t sum = 0;
    for (uint64_t k = 0; k < weight; ++k) sum ^= x[places[k] & mask];
    out[r] = sum;
  }
}

}  // extern "C"
