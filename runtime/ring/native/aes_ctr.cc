// AES-128 in counter mode. Levels: 0 none (the caller uses OpenSSL), 1 AES-NI or ARMv8 AES,
// 2 VAES on 512-bit registers. No tables: every level runs in constant time.

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <arm_neon.h>
#endif

namespace {

constexpr int kRounds = 10;
constexpr uint64_t kBlock = 16;

// A run of blocks whose counters share their upper 64 bits: nothing below has to carry into them.
struct Run {
  uint64_t high, low, blocks;
};

#if defined(__x86_64__)

#define AESNI __attribute__((target("aes,sse4.1")))
#define VAES __attribute__((target("aes,sse4.1,avx512f,avx512bw,vaes")))

int detect() {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & (1u << 25))) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return 1;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !(ecx & (1u << 9))) return 1;
  return 2;
}

AESNI uint32_t substitute(uint32_t word) {
  return _mm_cvtsi128_si32(_mm_aeskeygenassist_si128(_mm_set1_epi32(word), 0));
}

AESNI void blocks_aesni(const uint8_t* schedule, uint8_t* out, Run run) {
  constexpr int kWide = 8;
  const __m128i reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m128i key[kRounds + 1];
  for (int r = 0; r <= kRounds; ++r) key[r] = _mm_loadu_si128((const __m128i*)schedule + r);
  __m128i counter = _mm_set_epi64x(run.high, run.low);
  const __m128i one = _mm_set_epi64x(0, 1);
  while (run.blocks >= kWide) {
    __m128i s[kWide];
    for (int i = 0; i < kWide; ++i) {
      s[i] = _mm_xor_si128(_mm_shuffle_epi8(counter, reverse), key[0]);
      counter = _mm_add_epi64(counter, one);
    }
    for (int r = 1; r < kRounds; ++r)
      for (int i = 0; i < kWide; ++i) s[i] = _mm_aesenc_si128(s[i], key[r]);
    for (int i = 0; i < kWide; ++i)
      _mm_storeu_si128((__m128i*)out + i, _mm_aesenclast_si128(s[i], key[kRounds]));
    out += kWide * kBlock;
    run.blocks -= kWide;
  }
  for (; run.blocks; --run.blocks, out += kBlock) {
    __m128i s = _mm_xor_si128(_mm_shuffle_epi8(counter, reverse), key[0]);
    for (int r = 1; r < kRounds; ++r) s = _mm_aesenc_si128(s, key[r]);
    _mm_storeu_si128((__m128i*)out, _mm_aesenclast_si128(s, key[kRounds]));
    counter = _mm_add_epi64(counter, one);
  }
}

VAES void blocks_vaes(const uint8_t* schedule, uint8_t* out, Run run) {
  constexpr int kWide = 8;  // registers in flight, four blocks each
  const __m512i reverse =
      _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  __m512i key[kRounds + 1];
  for (int r = 0; r <= kRounds; ++r)
    key[r] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)schedule + r));
  __m512i counter = _mm512_add_epi64(_mm512_broadcast_i32x4(_mm_set_epi64x(run.high, run.low)),
                                     _mm512_set_epi64(0, 3, 0, 2, 0, 1, 0, 0));
  const __m512i four = _mm512_set_epi64(0, 4, 0, 4, 0, 4, 0, 4);
  while (run.blocks >= 4 * kWide) {
    __m512i s[kWide];
    for (int i = 0; i < kWide; ++i) {
      s[i] = _mm512_xor_si512(_mm512_shuffle_epi8(counter, reverse), key[0]);
      counter = _mm512_add_epi64(counter, four);
    }
    for (int r = 1; r < kRounds; ++r)
      for (int i = 0; i < kWide; ++i) s[i] = _mm512_aesenc_epi128(s[i], key[r]);
    for (int i = 0; i < kWide; ++i)
      _mm512_storeu_si512(out + 64 * i, _mm512_aesenclast_epi128(s[i], key[kRounds]));
    out += 64 * kWide;
    run.low += 4 * kWide;
    run.blocks -= 4 * kWide;
  }
  blocks_aesni(schedule, out, run);
}

void blocks(int level, const uint8_t* schedule, uint8_t* out, Run run) {
  (level == 2 ? blocks_vaes : blocks_aesni)(schedule, out, run);
}

#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))

#if defined(__clang__)
#define ARM_AES __attribute__((target("aes")))
#else
#define ARM_AES __attribute__((target("+crypto")))
#endif

int detect() {
#if defined(__APPLE__)
  return 1;
#else
  return (getauxval(AT_HWCAP) & (1ul << 3)) ? 1 : 0;
#endif
}

ARM_AES uint32_t substitute(uint32_t word) {
  // AESE with a zero key is ShiftRows, then SubBytes; four equal columns make ShiftRows the identity.
  return vgetq_lane_u32(
      vreinterpretq_u32_u8(vaeseq_u8(vreinterpretq_u8_u32(vdupq_n_u32(word)), vdupq_n_u8(0))), 0);
}

ARM_AES void blocks(int, const uint8_t* schedule, uint8_t* out, Run run) {
  constexpr int kWide = 8;
  uint8x16_t key[kRounds + 1];
  for (int r = 0; r <= kRounds; ++r) key[r] = vld1q_u8(schedule + kBlock * r);
  while (run.blocks) {
    const int wide = run.blocks < kWide ? static_cast<int>(run.blocks) : kWide;
    uint8x16_t s[kWide];
    for (int i = 0; i < kWide; ++i) {
      const uint64x2_t counter = vcombine_u64(vcreate_u64(run.high), vcreate_u64(run.low + i));
      s[i] = vrev64q_u8(vreinterpretq_u8_u64(counter));
    }
    for (int r = 0; r < kRounds - 1; ++r)
      for (int i = 0; i < kWide; ++i) s[i] = vaesmcq_u8(vaeseq_u8(s[i], key[r]));
    for (int i = 0; i < kWide; ++i) s[i] = veorq_u8(vaeseq_u8(s[i], key[kRounds - 1]), key[kRounds]);
    for (int i = 0; i < wide; ++i) vst1q_u8(out + kBlock * i, s[i]);
    out += kBlock * wide;
    run.low += wide;
    run.blocks -= wide;
  }
}

#else

int detect() { return 0; }
uint32_t substitute(uint32_t) { return 0; }
void blocks(int, const uint8_t*, uint8_t*, Run) {}

#endif

}  // namespace

extern "C" {

// The highest level this processor runs.
int spuvm_aes_level() {
  static const int level = detect();
  return level;
}

// FIPS-197, 5.2: 16 bytes of key to 11 round keys. Needs level >= 1, as does the function below.
void spuvm_aes_expand(const uint8_t* key, uint8_t* schedule) {
  uint32_t words[4 * (kRounds + 1)];
  std::memcpy(words, key, kBlock);
  uint32_t constant = 1;
  for (int i = 4; i < 4 * (kRounds + 1); ++i) {
    uint32_t word = words[i - 1];
    if (i % 4 == 0) {
      word = substitute(word);
      word = ((word >> 8) | (word << 24)) ^ constant;
      constant = (constant << 1) ^ (constant & 0x80 ? 0x11b : 0);
    }
    words[i] = words[i - 4] ^ word;
  }
  std::memcpy(schedule, words, sizeof words);
}

// out[0:nbytes] = the keystream from counter high * 2^64 + low. `level` is at most spuvm_aes_level().
void spuvm_aes_ctr(int level, const uint8_t* schedule, uint8_t* out, uint64_t nbytes, uint64_t high,
                   uint64_t low) {
  uint64_t left = nbytes / kBlock;
  while (left) {
    const uint64_t before_carry = 0 - low;  // 0 stands for 2^64
    const uint64_t count = before_carry && before_carry < left ? before_carry : left;
    blocks(level, schedule, out, Run{high, low, count});
    out += count * kBlock;
    left -= count;
    low += count;
    if (low == 0) ++high;
  }
  if (const uint64_t tail = nbytes % kBlock) {
    uint8_t last[kBlock];
    blocks(level, schedule, last, Run{high, low, 1});
    std::memcpy(out, last, tail);
  }
}

}  // extern "C"
